"""Log lines on stderr, JSON or (on a terminal) text; and the reason of a failed start where Kubernetes shows it."""

import json
import logging
import sys
from datetime import UTC, datetime
from pathlib import Path

from modelserve.errors import StartError

_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}
_TERMINATION_BYTES = 4096  # what the kubelet keeps of /dev/termination-log


class _JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, message, the `extra` of the call, and a traceback if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC)
            .isoformat(timespec="milliseconds")
            .replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "message": record.getMessage().strip(),
        }
        line |= {k: v for k, v in vars(record).items() if k not in _OWN}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class _TextFormatter(logging.Formatter):
    """A line for people: level, message and what came with it."""

    def format(self, record: logging.LogRecord) -> str:
        extras = {k: v for k, v in vars(record).items() if k not in _OWN}
        words = (f"{record.levelname.lower()}:", record.getMessage().strip(), str(extras.pop("hint", "")))
        text = " ".join([word for word in words if word] + [f"{k}={v}" for k, v in extras.items()])
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


def setup(form: str, level: str) -> None:
    """Send every logger, uvicorn's and Python's warnings included, to stderr in one form."""
    text = form == "text" or (form == "auto" and sys.stderr.isatty())
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_TextFormatter() if text else _JsonFormatter())
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    logging.captureWarnings(True)
    # Its start-up chatter says nothing that our own lines do not.
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    logging.getLogger("asyncio").setLevel(logging.WARNING)


def failure(error: StartError, termination_log: Path, model_path: Path | None = None) -> None:
    """Say why the process ends: one line in the log, and the same in the termination log if that file exists."""
    facts: dict[str, object] = {"code": error.code, "reason": error.reason, "hint": error.hint}
    if model_path is not None:
        facts["model_path"] = str(model_path)
    logging.getLogger("modelserve").error(error.message, extra=facts)
    try:
        if termination_log.exists():  # outside a pod there is none, and none must be made
            termination_log.write_bytes(_fitting({"level": "error", "message": error.message} | facts))
    except OSError:
        logging.getLogger("modelserve").debug("cannot write %s", termination_log)


def _fitting(line: dict[str, object]) -> bytes:
    """The line as JSON, its texts cut until it fits the termination log."""
    data = b""
    for length in (2000, 500, 100):
        cut = {key: value[:length] if isinstance(value, str) else value for key, value in line.items()}
        data = json.dumps(cut).encode()
        if len(data) <= _TERMINATION_BYTES:
            break
    return data
