"""Errors of modelserve: a failed start ends the process with an exit code, a refused request gets an HTTP status.

    StartError                    code  reason        the process ends with this code
    ├── NotFoundError               66  not_found     no model at MODEL_PATH
    ├── WrongBytesError             65  wrong_bytes   damaged, contradicted by the receipt, or not a model
    ├── UnfitError                  78  unfit         this image lacks a dependency of the model
    └── ConfigError                 78  config        a setting is wrong
    RequestError                  4xx, 503            the answer to a single request

Other exceptions are bugs: exit code 70 at start-up, status 500 in a request. The exit codes follow sysexits.h.
"""

from collections.abc import Mapping
from typing import ClassVar


class StartError(Exception):
    """The model cannot be served; raised directly only for bugs.

    Attributes:
        code: exit code of the process.
        reason: stable identifier for machines.
        message: the failure and the cause, one line.
        hint: the next step, one line; may be empty.
    """

    code: ClassVar[int] = 70
    reason: ClassVar[str] = "bug"

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class NotFoundError(StartError):
    """No model exists at MODEL_PATH, or the file is unreadable."""

    code, reason = 66, "not_found"


class WrongBytesError(StartError):
    """The file is damaged, contradicts the receipt, or holds no model."""

    code, reason = 65, "wrong_bytes"


class UnfitError(StartError):
    """The model is intact, but this environment lacks a module, a class or a version."""

    code, reason = 78, "unfit"


class ConfigError(StartError):
    """A setting is wrong, or the environment contradicts itself."""

    code, reason = 78, "config"


class RequestError(Exception):
    """A single request is refused; the client receives `message` as `{"error": message}`."""

    def __init__(self, message: str, *, status: int = 400, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.headers = dict(headers or {})
