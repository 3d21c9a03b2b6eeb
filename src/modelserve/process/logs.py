"""Logging on stderr, as JSON or (on a terminal) text; the reason of a failed start in Kubernetes' termination log."""

import json
import logging
import sys
from datetime import UTC, datetime
from pathlib import Path

from modelserve.errors import StartError

_RECORD_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}
_TERMINATION_BYTES = 4096  # limit of the kubelet for /dev/termination-log


class _JsonFormatter(logging.Formatter):
    """Format a record as one line of JSON: time, level, message, `extra` of the call, traceback if present."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC)
            .isoformat(timespec="milliseconds")
            .replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "message": record.getMessage().strip(),
        }
        line |= {k: v for k, v in vars(record).items() if k not in _RECORD_FIELDS}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class _TextFormatter(logging.Formatter):
    """Format a record as text for people: level, message, hint and the `extra` of the call."""

    def format(self, record: logging.LogRecord) -> str:
        extras = {k: v for k, v in vars(record).items() if k not in _RECORD_FIELDS}
        words = (f"{record.levelname.lower()}:", record.getMessage().strip(), str(extras.pop("hint", "")))
        text = " ".join([word for word in words if word] + [f"{k}={v}" for k, v in extras.items()])
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


def configure_logging(log_format: str, level: str) -> None:
    """Send every logger's records, including uvicorn's and Python warnings, to stderr in one format."""
    text = log_format == "text" or (log_format == "auto" and sys.stderr.isatty())
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_TextFormatter() if text else _JsonFormatter())
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    logging.captureWarnings(True)
    # uvicorn's start-up messages repeat lines of modelserve.
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    logging.getLogger("asyncio").setLevel(logging.WARNING)


def report_failure(error: StartError, termination_log: Path, model_path: Path | None = None) -> None:
    """Report the reason for the end of the process: one log line, repeated in an existing termination log."""
    facts: dict[str, object] = {"code": error.code, "reason": error.reason, "hint": error.hint}
    if model_path is not None:
        facts["model_path"] = str(model_path)
    logging.getLogger("modelserve").error(error.message, extra=facts)
    try:
        if termination_log.exists():  # absent outside a pod, and never created
            termination_log.write_bytes(_fit_termination_log({"level": "error", "message": error.message} | facts))
    except OSError:
        logging.getLogger("modelserve").debug("cannot write %s", termination_log)


def _fit_termination_log(line: dict[str, object]) -> bytes:
    """Encode the line as JSON, with texts cut to the size of the termination log."""
    data = b""
    for length in (2000, 500, 100):
        cut = {key: value[:length] if isinstance(value, str) else value for key, value in line.items()}
        data = json.dumps(cut).encode()
        if len(data) <= _TERMINATION_BYTES:
            break
    return data
