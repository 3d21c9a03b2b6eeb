"""Console: events on stderr, as text with a progress bar for a person or as JSON lines for a log."""

import os
import re
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

from modelfetch.cli.redaction import Redactor, escape_invisible

if TYPE_CHECKING:
    from rich.console import Console as RichConsole
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

_REPORT_SECONDS, _REPORT_SHARE = 10.0, 0.1  # between two progress lines, whichever comes first
_LEVELS = ("debug", "info", "warning", "error")
_TITLE_COLUMNS = 40
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class Renderer(Protocol):
    """Output format of a console."""

    def write_message(self, level: str, message: str, facts: dict[str, object]) -> None:
        """Write a message with further facts."""
        ...

    def write_failure(self, report: dict[str, object]) -> None:
        """Write the report of a failure."""
        ...

    def start_transfer(self, title: str, total: int | None) -> None:
        """Show the start of a transfer."""
        ...

    def add_bytes(self, count: int) -> None:
        """Show the progress of the transfer."""
        ...

    def end_transfer(self) -> None:
        """Remove the progress bar from the terminal."""
        ...


class Console:
    """Thread-safe `Progress` for one command: writes events at or above a level; drops events once closed."""

    def __init__(
        self,
        log_format: str = "auto",
        log_level: str = "info",
        progress: str = "auto",
        redactor: Redactor | None = None,
    ) -> None:
        """Choose the renderer; `auto` means text on a terminal and JSON lines elsewhere."""
        redactor = redactor or Redactor()
        terminal = sys.stderr.isatty()
        text = log_format == "text" or (log_format == "auto" and terminal)
        bar = progress == "bar" or (progress == "auto" and terminal and text and os.environ.get("TERM") != "dumb")
        lines = progress in ("auto", "lines")
        self._min_level = _LEVELS.index(log_level)
        self._renderer: Renderer = (
            _TextRenderer(redactor, bar=bar, lines=lines and not bar)
            if text
            else _JsonRenderer(redactor, lines=progress != "off")
        )
        self._lock = threading.RLock()  # reentrant: a signal may interrupt the main thread that holds the lock
        self._closed = False

    def start_phase(self, label: str, total: int | None) -> None:
        """Show the start of a transfer; see `Progress.start_phase`."""
        self._emit_event("info", lambda: self._renderer.start_transfer(label, total))

    def add_bytes(self, count: int) -> None:
        """Show the progress of a transfer; see `Progress.add_bytes`."""
        self._emit_event("info", lambda: self._renderer.add_bytes(count))

    def log_info(self, message: str, **facts: object) -> None:
        """Write a message of level info; see `Progress.log_info`."""
        self._emit_event("info", lambda: self._renderer.write_message("info", message, facts))

    def log_warning(self, message: str, **facts: object) -> None:
        """Write a message of level warning; see `Progress.log_warning`."""
        self._emit_event("warning", lambda: self._renderer.write_message("warning", message, facts))

    def end_phase(self) -> None:
        """Remove the progress bar; see `Progress.end_phase`."""
        self._emit_event("error", self._renderer.end_transfer)

    def report_failure(self, report: dict[str, object]) -> None:
        """Write a failure report, at every level and also on a closed console."""
        with self._lock:
            self._renderer.write_failure(report)

    def close(self) -> None:
        """Drop all later events: threads of a failed command may still run, and the failure report comes last."""
        with self._lock:
            self._closed = True

    def _emit_event(self, level: str, write: Callable[[], None]) -> None:
        with self._lock:
            if not self._closed and self._min_level <= _LEVELS.index(level):
                write()


class _JsonRenderer:
    """JSON lines, with a progress line every 10 s or 10 %."""

    def __init__(self, redactor: Redactor, *, lines: bool) -> None:
        self._redactor = redactor
        self._meter = _ProgressMeter(self._write_progress) if lines else None

    def write_message(self, level: str, message: str, facts: dict[str, object]) -> None:
        now = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"
        self._write_line({"time": now, "level": level, "message": message, **facts})

    def write_failure(self, report: dict[str, object]) -> None:
        self._write_line(report)

    def start_transfer(self, title: str, total: int | None) -> None:
        self.write_message("info", f"{title}.", {"total_bytes": total})
        if self._meter:
            self._meter.start_transfer(total)

    def add_bytes(self, count: int) -> None:
        if self._meter:
            self._meter.add_bytes(count)

    def end_transfer(self) -> None:
        pass

    def _write_progress(self, facts: dict[str, object]) -> None:
        self.write_message("info", "progress", facts)

    def _write_line(self, fields: dict[str, object]) -> None:
        sys.stderr.write(self._redactor.dump_json(fields) + "\n")
        sys.stderr.flush()


class _ProgressMeter:
    """Byte counter that reports every 10 s or 10 %."""

    def __init__(self, report: Callable[[dict[str, object]], None]) -> None:
        self._report = report
        self._total: int | None = None
        self._done = self._reported_bytes = 0
        self._started_at = self._reported_at = time.monotonic()

    def start_transfer(self, total: int | None) -> None:
        self._total, self._done, self._reported_bytes = total, 0, 0
        self._started_at = self._reported_at = time.monotonic()

    def add_bytes(self, count: int) -> None:
        self._done += count
        now = time.monotonic()
        step = self._total is not None and self._done - self._reported_bytes >= self._total * _REPORT_SHARE
        if not step and now - self._reported_at < _REPORT_SECONDS:
            return
        self._reported_at, self._reported_bytes = now, self._done
        rate = self._done / max(now - self._started_at, 1e-6)
        facts: dict[str, object] = {"bytes": self._done, "total_bytes": self._total, "bytes_per_second": round(rate)}
        if self._total:
            facts["percent"] = round(100 * self._done / self._total)
        self._report(facts)


class _TextRenderer:
    """Plain lines for a person, with a progress bar during a transfer."""

    def __init__(self, redactor: Redactor, *, bar: bool, lines: bool) -> None:
        from rich.console import Console as RichConsole  # noqa: PLC0415  60 ms that JSON lines do not need

        self._redactor = redactor
        self._console: RichConsole = RichConsole(stderr=True, highlight=False, soft_wrap=True)
        self._with_bar = bar
        self._meter = _ProgressMeter(self._write_progress) if lines else None
        self._bar: RichProgress | None = None
        self._task: TaskID | None = None

    def write_message(self, level: str, message: str, facts: dict[str, object]) -> None:  # noqa: ARG002  the message suffices a person
        style = "yellow" if level == "warning" else None
        self._console.print(self._clean_text(f"warning: {message}" if style else message), style=style, markup=False)

    def write_failure(self, report: dict[str, object]) -> None:
        self.end_transfer()
        line = f"error: {report['message']}{' ' if report['hint'] else ''}{report['hint']}"
        self._console.print(self._clean_text(line), style="bold red", markup=False)

    def start_transfer(self, title: str, total: int | None) -> None:
        self.end_transfer()
        if self._meter:
            self._meter.start_transfer(total)
        if self._with_bar:
            self._bar = _make_bar(self._console)
            self._task = self._bar.add_task(_shorten_title(self._clean_text(title)), total=total)
            try:
                self._bar.start()
            except (RuntimeError, MemoryError):  # no thread for the bar: the transfer goes on without
                self._bar = None

    def add_bytes(self, count: int) -> None:
        if self._meter:
            self._meter.add_bytes(count)
        if self._bar is not None and self._task is not None:
            self._bar.advance(self._task, count)

    def end_transfer(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _write_progress(self, facts: dict[str, object]) -> None:
        share = f" ({facts['percent']} %)" if "percent" in facts else ""
        self._console.print(f"{facts['bytes']} bytes{share}", markup=False)

    def _clean_text(self, text: str) -> str:
        """Return text for a terminal: without secrets, and without control characters, which a terminal obeys."""
        return escape_invisible(_CONTROL.sub("\N{REPLACEMENT CHARACTER}", self._redactor.redact(text)))


def _make_bar(console: "RichConsole") -> "RichProgress":
    from rich.progress import (  # noqa: PLC0415  as above
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=console,
    )


def _shorten_title(text: str) -> str:
    """Return the end of a long text, where the model's name is; the bar beside the title needs its columns."""
    return text if len(text) <= _TITLE_COLUMNS else f"…{text[1 - _TITLE_COLUMNS :]}"
