"""Failure reports: the last JSON line, the termination message of the pod, the traceback of `--debug`."""

import os
import sys
import traceback
from pathlib import Path

from modelfetch.cli.redaction import Redactor, escape_invisible
from modelfetch.errors import ModelfetchError

TERMINATION_LIMIT = 4096  # bytes that Kubernetes keeps of a termination message


def report_error(error: ModelfetchError, source: str) -> dict[str, object]:
    """Return the failure report of an error."""
    return make_report(error.code, error.reason, error.message, error.hint, source)


def make_report(code: int, reason: str, message: str, hint: str, source: str) -> dict[str, object]:
    """Return a failure report: a flat object, with message and hint on a single line each."""
    message, hint = (" ".join(text.split()) for text in (message, hint))
    return {"level": "error", "code": code, "reason": reason, "message": message, "hint": hint, "source": source}


def write_termination_message(path: Path, report: dict[str, object], redactor: Redactor) -> None:
    """Write the report where `kubectl describe pod` shows the reason: one line of JSON, 4 KiB at most.

    Raises:
        OSError: the file cannot be written, or is a FIFO without a reader.
    """
    text = redactor.dump_json(report)
    while len(_encode_utf8(text)) > TERMINATION_LIMIT:
        longest = max(("message", "hint", "source"), key=lambda name: len(str(report[name])))
        value = str(report[longest])
        report = {**report, longest: value[: len(value) * 3 // 4] + "…"}
        text = redactor.dump_json(report)
    with open(path, "wb", buffering=0, opener=_open_nonblocking) as file:
        file.write(_encode_utf8(text))


def _open_nonblocking(path: str, flags: int) -> int:
    """Open a file without waiting for the reader of a FIFO: a failure report must not hang."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0), 0o644)


def _encode_utf8(text: str) -> bytes:
    """Encode JSON as UTF-8; bytes of other encodings in a file name become JSON escapes."""
    return text.encode(errors="backslashreplace")


def print_traceback(error: BaseException, redactor: Redactor) -> None:
    """Print the traceback of an error on stderr, secrets removed."""
    sys.stderr.write(escape_invisible(redactor.redact("".join(traceback.format_exception(error)))))
