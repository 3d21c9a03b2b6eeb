"""What can go wrong, and what a caller may do about it.

    ModelfetchError                     code  reason
    ├── UsageError                         2  usage
    ├── WrongBytesError                   65  wrong_bytes
    │   ├── MismatchError                 65  mismatch        size or checksum; tried once more from scratch
    │   ├── SignatureError                65  signature       unsigned, altered, or signed by somebody else
    │   ├── UnsafeNameError               65  unsafe_name     a key or a file name that must not be written
    │   ├── ArchiveError                  65  archive         corrupt, hostile, or no archive at all
    │   └── BudgetError                   65  budget          more bytes, files or expansion than allowed
    ├── NotFoundError                     66  not_found
    ├── RefusedError                      69  refused         the server's last word
    ├── DestinationError                  73  destination     no room, not writable, in the way
    ├── TransientError                    75  transient       may heal: retried
    │   ├── ChangedError                  75  changed         the object was replaced while it was read
    │   └── DeadlineError                 75  deadline        the time given is used up: not retried
    ├── CredentialsError                  77  credentials     refused
    │   └── NoCredentialsError            77  no_credentials  none found, or their source did not answer
    └── ConfigError                       78  config

    Interrupted                      130/143  interrupted     SIGINT or SIGTERM

Anything else that escapes is a bug: exit code 70. The codes are those of sysexits.h; the command line's own 2 and the
shell's 128+n for signals stand beside them.
"""

from typing import ClassVar

BUG_CODE = 70


class ModelfetchError(Exception):
    """The root; never raised itself.

    Attributes:
        code: exit code of the process.
        reason: stable identifier for machines.
        retryable: whether trying the whole pull again may help.
        message: what happened and why, one line, without secrets.
        hint: what to do next, one line; may be empty.
    """

    code: ClassVar[int] = BUG_CODE
    reason: ClassVar[str] = "bug"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(ModelfetchError):
    """The command line asks for something that makes no sense."""

    code, reason = 2, "usage"


class ConfigError(ModelfetchError):
    """The environment or a configuration file is wrong."""

    code, reason = 78, "config"


class WrongBytesError(ModelfetchError):
    """What came is not what was promised, or must not be trusted."""

    code, reason = 65, "wrong_bytes"


class MismatchError(WrongBytesError):
    """Size or checksum differ from what the store or the caller says."""

    reason = "mismatch"


class SignatureError(WrongBytesError):
    """The model is not signed, not by whom it should be, or is not what was signed."""

    reason = "signature"


class UnsafeNameError(WrongBytesError):
    """A key or member name does not name the path it gives, or two names collide."""

    reason = "unsafe_name"


class ArchiveError(WrongBytesError):
    """An archive is corrupt or hostile, or a file named like one is none."""

    reason = "archive"


class BudgetError(WrongBytesError):
    """The model is larger than what the settings allow."""

    reason = "budget"


class NotFoundError(ModelfetchError):
    """No such bucket, object, version, or no file under the prefix."""

    code, reason = 66, "not_found"


class RefusedError(ModelfetchError):
    """The server said no for good, for a reason other than credentials."""

    code, reason = 69, "refused"


class DestinationError(ModelfetchError):
    """The destination has no room, cannot be written, or holds something that is in the way."""

    code, reason = 73, "destination"


class TransientError(ModelfetchError):
    """Something that may heal by itself did not heal in time."""

    code, reason, retryable = 75, "transient", True

    def __init__(self, message: str, *, hint: str = "", retry_after: float | None = None) -> None:
        """Take `retry_after`, the seconds that the server asked us to wait, if it did."""
        super().__init__(message, hint=hint)
        self.retry_after = retry_after


class ChangedError(TransientError):
    """The object was replaced while it was being read; a new attempt reads the new one."""

    reason = "changed"


class DeadlineError(TransientError):
    """The total time allowed is used up."""

    reason, retryable = "deadline", False


class CredentialsError(ModelfetchError):
    """The store refuses the credentials it was given."""

    code, reason = 77, "credentials"


class NoCredentialsError(CredentialsError):
    """No credentials were found, or what issues them did not answer."""

    reason = "no_credentials"


class Interrupted(BaseException):
    """A signal asked the process to stop. No `Exception`: what catches those, in an SDK say, must not catch this.

    Attributes:
        signum: the signal's number; the exit code is 128 more, as a shell has it.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum
