"""The two faces of output on stderr: rich for a person, JSON lines for a log. And the termination message."""

import json
import os
import re
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import quote, quote_plus

from modelfetch.errors import ModelfetchError

if TYPE_CHECKING:
    from rich.console import Console as RichConsole
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

TERMINATION_LIMIT = 4096  # bytes that Kubernetes keeps of a termination message
_EVERY_SECONDS, _EVERY_SHARE = 10.0, 0.1
_LEVELS = ("debug", "info", "warning", "error")
# What looks like a secret: in a query, in a header, in JSON or a repr of it, in XML, in an address, in a key's file.
_SECRETS = re.compile(
    r"""(?ix)
    ((?:X-(?:Amz|Goog)-[a-z-]+|AWSAccessKeyId|Signature|sig|token|client_secret|assertion|password|upload_id)=)
    [^&\s'"\\]+
    | ((?:Bearer|Basic)\s+) [^\s'"\\]+
    | ((?:token|secret(?:_?access)?(?:_?key)?|private_?key|password|assertion)[\\'"]+\s*:\s*[\\'"]+) [^'"\\]+
    | (<(?:SecretAccessKey|SessionToken|WebIdentityToken)>) [^<]+
    | (://) [^\s/?\#'"\\@]+ (?=@)
    | (-----BEGIN\ [A-Z\ ]*PRIVATE\ KEY-----) [\s\S]*? (?:-----END\ [A-Z\ ]*-----|\Z)
    """
)
_SHORTEST = 6  # characters of a secret that is known: fewer would be found in everything
_hidden: set[str] = set()
_TITLE = 40  # columns
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
# What JSON need not escape, but a terminal obeys, or shows as nothing or in another order: Unicode TR36, 2.6 and 2.8.
_UNSEEN = re.compile(
    "[\x7f-\x9f\u00ad\u061c\u115f\u1160\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff9-\ufffb"
    "\U000e0000-\U000e007f]"
)


class Face(Protocol):
    """What shows a pull's events."""

    def say(self, level: str, message: str, facts: dict[str, object]) -> None:
        """Show one line."""
        ...

    def failed(self, failure: dict[str, object]) -> None:
        """Show why it failed."""
        ...

    def begin(self, what: str, total: int | None) -> None:
        """Show that a transfer begins."""
        ...

    def advance(self, count: int) -> None:
        """Show that more bytes are there."""
        ...

    def end(self) -> None:
        """Leave the terminal as it was."""
        ...


class Console:
    """Tells a person or a log what happens, at the level asked for, from any thread; a failure is its last word."""

    def __init__(self, log_format: str = "auto", log_level: str = "info", progress: str = "auto") -> None:
        """Choose the face: `auto` asks whether stderr is a terminal."""
        person = sys.stderr.isatty()
        text = log_format == "text" or (log_format == "auto" and person)
        bar = progress == "bar" or (progress == "auto" and person and text and os.environ.get("TERM") != "dumb")
        self._least = _LEVELS.index(log_level)
        lines = progress in ("auto", "lines")
        self._face: Face = _Terminal(bar=bar, lines=lines and not bar) if text else _Log(lines=progress != "off")
        self._turn = threading.RLock()  # a signal may interrupt the main thread where it holds it
        self._over = False

    def begin(self, what: str, total: int | None) -> None:
        """See `Progress.begin`."""
        self._tell("info", lambda: self._face.begin(what, total))

    def advance(self, count: int) -> None:
        """See `Progress.advance`."""
        self._tell("info", lambda: self._face.advance(count))

    def note(self, message: str, **facts: object) -> None:
        """See `Progress.note`."""
        self._tell("info", lambda: self._face.say("info", message, facts))

    def warn(self, message: str, **facts: object) -> None:
        """See `Progress.warn`."""
        self._tell("warning", lambda: self._face.say("warning", message, facts))

    def failed(self, failure: dict[str, object]) -> None:
        """Show why it failed, whatever the level; what threads that still run have to say comes too late."""
        with self._turn:
            self._over = True
            self._face.failed(failure)

    def end(self) -> None:
        """See `Progress.end`; leaves the terminal as it was."""
        self._tell("error", self._face.end)

    def _tell(self, level: str, show: Callable[[], None]) -> None:
        with self._turn:
            if not self._over and self._least <= _LEVELS.index(level):
                show()


class _Log:
    """JSON lines, with one on the progress every 10 s or 10 %."""

    def __init__(self, *, lines: bool) -> None:
        self._meter = _Meter(self._progress) if lines else None

    def say(self, level: str, message: str, facts: dict[str, object]) -> None:
        _emit({"time": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}", "level": level, "message": message, **facts})

    def failed(self, failure: dict[str, object]) -> None:
        _emit(failure)

    def begin(self, what: str, total: int | None) -> None:
        self.say("info", f"{what}.", {"total_bytes": total})
        if self._meter:
            self._meter.begin(total)

    def advance(self, count: int) -> None:
        if self._meter:
            self._meter.advance(count)

    def _progress(self, facts: dict[str, object]) -> None:
        self.say("info", "progress", facts)

    def end(self) -> None:
        pass


def _emit(line: dict[str, object]) -> None:
    sys.stderr.write(_json(line) + "\n")
    sys.stderr.flush()


def _json(line: dict[str, object]) -> str:
    """One line of JSON without secrets, and with nothing in it that does not show."""
    return visible(redacted(json.dumps(line, ensure_ascii=False, default=str)))


class _Meter:
    """Counts bytes, and reports every 10 s or 10 %."""

    def __init__(self, report: Callable[[dict[str, object]], None]) -> None:
        self._report = report
        self._total: int | None = None
        self._done = self._told_bytes = 0
        self._start = self._told_at = time.monotonic()

    def begin(self, total: int | None) -> None:
        self._total, self._done, self._told_bytes = total, 0, 0
        self._start = self._told_at = time.monotonic()

    def advance(self, count: int) -> None:
        self._done += count
        now = time.monotonic()
        step = self._total is not None and self._done - self._told_bytes >= self._total * _EVERY_SHARE
        if not step and now - self._told_at < _EVERY_SECONDS:
            return
        self._told_at, self._told_bytes = now, self._done
        rate = self._done / max(now - self._start, 1e-6)
        facts: dict[str, object] = {"bytes": self._done, "total_bytes": self._total, "bytes_per_second": round(rate)}
        if self._total:
            facts["percent"] = round(100 * self._done / self._total)
        self._report(facts)


class _Terminal:
    """Plain lines for a person, with a bar while bytes arrive."""

    def __init__(self, *, bar: bool, lines: bool) -> None:
        from rich.console import Console as RichConsole  # noqa: PLC0415  60 ms that a log does not need

        self._console: RichConsole = RichConsole(stderr=True, highlight=False, soft_wrap=True)
        self._bar = bar
        self._meter = _Meter(self._progress) if lines else None
        self._shown: RichProgress | None = None
        self._task: TaskID | None = None

    def say(self, level: str, message: str, facts: dict[str, object]) -> None:  # noqa: ARG002  a person reads the message
        style = "yellow" if level == "warning" else None
        self._console.print(_plain(f"warning: {message}" if style else message), style=style, markup=False)

    def failed(self, failure: dict[str, object]) -> None:
        self.end()
        line = f"error: {failure['message']}{' ' if failure['hint'] else ''}{failure['hint']}"
        self._console.print(_plain(line), style="bold red", markup=False)

    def begin(self, what: str, total: int | None) -> None:
        self.end()
        if self._meter:
            self._meter.begin(total)
        if self._bar:
            self._shown = _bar(self._console)
            self._task = self._shown.add_task(_short(_plain(what)), total=total)
            self._shown.start()

    def advance(self, count: int) -> None:
        if self._meter:
            self._meter.advance(count)
        if self._shown is not None and self._task is not None:
            self._shown.advance(self._task, count)

    def _progress(self, facts: dict[str, object]) -> None:
        share = f" ({facts['percent']} %)" if "percent" in facts else ""
        self._console.print(f"{facts['bytes']} bytes{share}", markup=False)

    def end(self) -> None:
        if self._shown is not None:
            self._shown.stop()
            self._shown = None


def _bar(console: "RichConsole") -> "RichProgress":
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


def failure(error: ModelfetchError, source: str) -> dict[str, object]:
    """What a machine is told of a failure."""
    return report(error.code, error.reason, error.message, error.hint, source)


def report(code: int, reason: str, message: str, hint: str, source: str) -> dict[str, object]:
    """A failure as one flat object."""
    one_line = [" ".join(text.split()) for text in (message, hint)]
    return {
        "level": "error",
        "code": code,
        "reason": reason,
        "message": one_line[0],
        "hint": one_line[1],
        "source": source,
    }


def write_termination_message(path: Path, failure: dict[str, object]) -> None:
    """Leave the reason where `kubectl describe pod` shows it: one line of JSON, 4 KiB at most.

    Raises:
        OSError: the file cannot be written.
    """
    text = _json(failure)
    while len(_encoded(text)) > TERMINATION_LIMIT:
        longest = max(("message", "hint", "source"), key=lambda k: len(str(failure[k])))
        kept = str(failure[longest])
        failure = {**failure, longest: kept[: len(kept) * 3 // 4] + "…"}
        text = _json(failure)
    path.write_bytes(_encoded(text))


def _encoded(text: str) -> bytes:
    """JSON as UTF-8; what a file's name holds of other encodings as an escape that JSON reads."""
    return text.encode(errors="backslashreplace")


def _short(text: str) -> str:
    """The end of a long text, where a model's name is: the bar beside it needs its room."""
    return text if len(text) <= _TITLE else f"…{text[1 - _TITLE :]}"


def _plain(text: str) -> str:
    """Text for a terminal: no secrets, and no control characters, with which a name could command it."""
    return visible(_CONTROL.sub("\N{REPLACEMENT CHARACTER}", redacted(text)))


def visible(text: str) -> str:
    """The text with escapes, as JSON has them, for what would not show, or hide what does."""
    return _UNSEEN.sub(lambda found: json.dumps(found[0])[1:-1], text)


def hide(secrets: Iterable[str]) -> None:
    """Never show these, whatever the form in which a library may quote them."""
    for secret in secrets:
        for text in {secret, *secret.split(), repr(secret)[1:-1]}:
            forms = {text, quote(text), quote_plus(text)}
            _hidden.update(json.dumps(form, ensure_ascii=False)[1:-1] for form in forms if len(form) >= _SHORTEST)
            _hidden.update(form for form in forms if len(form) >= _SHORTEST)


def redacted(text: str) -> str:
    """The text without what is known to be a secret, and without what looks like one."""
    for secret in sorted(_hidden, key=len, reverse=True):
        text = text.replace(secret, "***")
    return _SECRETS.sub(lambda found: f"{next(filter(None, found.groups()))}***", text)


def trace(error: BaseException) -> None:
    """Print where an error came from; secrets left out."""
    sys.stderr.write(redacted("".join(traceback.format_exception(error))))
