"""What can go wrong, for the process and for one request.

    StartError                    code  reason        the process ends with this code
    ├── NotFoundError               66  not_found     no model at MODEL_PATH
    ├── WrongBytesError             65  wrong_bytes   damaged, not what the receipt says, or not a model
    ├── UnfitError                  78  unfit         this image lacks what the model was made with
    └── ConfigError                 78  config        a setting is wrong
    RequestError                  4xx, 503            the answer to one request

Anything else that escapes is a bug: exit code 70 at the start, status 500 in a request. The codes are those of
sysexits.h.
"""

from collections.abc import Mapping
from typing import ClassVar


class StartError(Exception):
    """The model cannot be served; raised itself only for bugs.

    Attributes:
        code: exit code of the process.
        reason: stable identifier for machines.
        message: what happened and why, one line.
        hint: what to do next, one line; may be empty.
    """

    code: ClassVar[int] = 70
    reason: ClassVar[str] = "bug"

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class NotFoundError(StartError):
    """There is no model where MODEL_PATH points."""

    code, reason = 66, "not_found"


class WrongBytesError(StartError):
    """The file is damaged, is not what its receipt says, or holds no model."""

    code, reason = 65, "wrong_bytes"


class UnfitError(StartError):
    """The model is sound, but this environment lacks what it needs: a module, a class, a version."""

    code, reason = 78, "unfit"


class ConfigError(StartError):
    """A setting is wrong, or the environment contradicts itself."""

    code, reason = 78, "config"


class RequestError(Exception):
    """One request cannot be answered; `message` goes to the client as `{"error": message}`."""

    def __init__(self, message: str, *, status: int = 400, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.headers = dict(headers or {})
