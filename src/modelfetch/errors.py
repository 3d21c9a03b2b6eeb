"""Error classes: every failure with its exit code, stable reason and hint for the user.

    ModelfetchError                     code  reason
    ├── UsageError                         2  usage
    ├── WrongBytesError                   65  wrong_bytes
    │   ├── MismatchError                 65  mismatch        size or checksum; pulled once more from scratch
    │   ├── SignatureError                65  signature       unsigned, altered, or signed by somebody else
    │   ├── UnsafeNameError               65  unsafe_name     a key or file name unsafe to write
    │   ├── ArchiveError                  65  archive         corrupt, hostile, or no archive at all
    │   └── BudgetError                   65  budget          more bytes, files or expansion than allowed
    ├── NotFoundError                     66  not_found
    ├── RefusedError                      69  refused         the server refused for good
    ├── DestinationError                  73  destination     disk full, not writable, conflict
    │   └── OutputError                   73  output          stdout cannot be written
    ├── TransientError                    75  transient       may succeed later: retried
    │   ├── ChangedError                  75  changed         object replaced during the read
    │   ├── ResourceError                 75  resources       no thread or no memory left
    │   └── DeadlineError                 75  deadline        deadline passed: not retried
    ├── CredentialsError                  77  credentials     refused
    │   └── NoCredentialsError            77  no_credentials  none found, or the issuer did not answer
    └── ConfigError                       78  config

    Interrupted                      130/143  interrupted     SIGINT or SIGTERM

Any other exception is a bug: exit code 70. Exit codes follow sysexits.h, except 2 for usage errors (by convention of
command lines) and 128+n for signals (by convention of shells).
"""

from typing import ClassVar

BUG_CODE = 70


class ModelfetchError(Exception):
    """Base class of all errors; never raised itself.

    Attributes:
        code: exit code of the process.
        reason: stable identifier for machines.
        retryable: whether a new attempt at the whole pull may succeed.
        message: the failure and its cause, one line, without secrets.
        hint: the next step for the user, one line; may be empty.
    """

    code: ClassVar[int] = BUG_CODE
    reason: ClassVar[str] = "bug"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(ModelfetchError):
    """The command line is not valid."""

    code, reason = 2, "usage"


class ConfigError(ModelfetchError):
    """The environment or a configuration file is not valid."""

    code, reason = 78, "config"


class WrongBytesError(ModelfetchError):
    """The bytes received differ from the promise, or must not be trusted."""

    code, reason = 65, "wrong_bytes"


class MismatchError(WrongBytesError):
    """Size or checksum differ from the value of the store or of the caller."""

    reason = "mismatch"


class SignatureError(WrongBytesError):
    """The model is unsigned, signed by another identity, or altered after signing."""

    reason = "signature"


class UnsafeNameError(WrongBytesError):
    """A key or member name does not name its path literally, or two names collide."""

    reason = "unsafe_name"


class ArchiveError(WrongBytesError):
    """An archive is corrupt or hostile, or a file with an archive's name is no archive."""

    reason = "archive"


class BudgetError(WrongBytesError):
    """The model is larger than the settings allow."""

    reason = "budget"


class NotFoundError(ModelfetchError):
    """The bucket, object or version does not exist, or the prefix holds no file."""

    code, reason = 66, "not_found"


class RefusedError(ModelfetchError):
    """The server refused for good, for a reason other than credentials."""

    code, reason = 69, "refused"


class DestinationError(ModelfetchError):
    """The destination has no free space, is not writable, or holds a conflicting file."""

    code, reason = 73, "destination"


class OutputError(DestinationError):
    """The output on stdout was lost: closed, full, or without a reader."""

    reason = "output"


class TransientError(ModelfetchError):
    """A temporary failure lasted longer than the retries."""

    code, reason, retryable = 75, "transient", True

    def __init__(self, message: str, *, hint: str = "", retry_after: float | None = None) -> None:
        """Take `retry_after`, the delay in seconds requested by the server, if any."""
        super().__init__(message, hint=hint)
        self.retry_after = retry_after


class ChangedError(TransientError):
    """The object was replaced while it was being read; a new attempt reads the new version."""

    reason = "changed"


class ResourceError(TransientError):
    """The system grants no thread or no memory: a limit of processes or of memory is reached."""

    reason = "resources"


class DeadlineError(TransientError):
    """The deadline for the whole command has passed."""

    reason, retryable = "deadline", False


class CredentialsError(ModelfetchError):
    """The store refused the credentials given."""

    code, reason = 77, "credentials"


class NoCredentialsError(CredentialsError):
    """No credentials were found, or their issuer did not answer."""

    reason = "no_credentials"


class Interrupted(BaseException):
    """A signal asked the process to stop; no `Exception`, so that no handler in an SDK, say, swallows a signal.

    Attributes:
        signum: number of the signal; the exit code is 128 more, by the shell's convention.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum
