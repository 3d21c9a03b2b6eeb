"""Standard streams that never stop a command: stderr loses text that cannot be written, stdout reports the loss.

In a pod, stderr may be closed, full, or a pipe without a reader. A log line is no reason to fail a pull, to wait for
ever or to miss a signal.
"""

import codecs
import errno
import io
import json
import os
import select
import sys
from contextlib import suppress
from typing import TextIO

from modelfetch.errors import OutputError

_PIPE_BUF = 4096  # bytes that a writable pipe takes without blocking: pipe(7), PIPE_BUF
_PATIENCE = 1.0  # seconds for the reader of a full pipe
_ESCAPE_ERRORS = "modelfetch.jsonescape"


class StderrStream(io.TextIOBase):
    """Text stream on stderr; drops text that cannot be written, and waits for a stuck reader only once."""

    def __init__(self, fd: int, encoding: str, patience: float = _PATIENCE) -> None:
        """Write to a file descriptor.

        Args:
            fd: file descriptor of stderr.
            encoding: encoding of the text; other characters become JSON escapes.
            patience: seconds to wait for the reader of a full pipe; once they passed in vain, none until the reader
                has read again.
        """
        self._fd = fd
        self._encoding = encoding
        self._patience = self._wait_seconds = patience
        self._torn = False  # the last line lacks its end

    @property
    def encoding(self) -> str:  # type: ignore[override]  # typeshed declares an attribute
        """Name of the text's encoding."""
        return self._encoding

    def fileno(self) -> int:
        """Return the number of the descriptor."""
        return self._fd

    def isatty(self) -> bool:
        """Return whether a person reads the stream."""
        return os.isatty(self._fd)

    def writable(self) -> bool:
        """Return True: the stream takes text, even if it has to drop the text."""
        return True

    def write(self, text: str) -> int:
        """Write the text, or as much of it as the reader takes; return the length of the text."""
        data = _encode_text("\n" + text if self._torn else text, self._encoding)
        with suppress(OSError):  # EPIPE, ENOSPC, EIO, EBADF: nowhere to report a lost log line
            data = self._write_available(data)
        self._torn = bool(data)
        return len(text)

    def _write_available(self, data: bytes) -> bytes:
        """Write pieces while the reader takes them; return the rest."""
        while data and self._wait_writable():
            data = data[os.write(self._fd, data[:_PIPE_BUF]) :]
        return data

    def _wait_writable(self) -> bool:
        """Wait for room in the pipe, not at all if the last wait was in vain; return whether there is room."""
        writable = _poll_writable(self._fd, self._wait_seconds)
        self._wait_seconds = self._patience if writable else 0.0
        return writable


class StdoutStream(io.TextIOBase):
    """Text stream on stdout; waits for the reader, and raises `OutputError` if the text is lost."""

    def __init__(self, fd: int | None, encoding: str) -> None:
        """Write to a file descriptor; None for a closed stdout."""
        self._fd = fd
        self._encoding = encoding

    @property
    def encoding(self) -> str:  # type: ignore[override]  # typeshed declares an attribute
        """Name of the text's encoding."""
        return self._encoding

    def fileno(self) -> int:
        """Return the number of the descriptor."""
        if self._fd is None:
            raise io.UnsupportedOperation("stdout is closed")
        return self._fd

    def isatty(self) -> bool:
        """Return whether a person reads the stream."""
        return self._fd is not None and os.isatty(self._fd)

    def writable(self) -> bool:
        """Return True: the stream takes text."""
        return True

    def write(self, text: str) -> int:
        """Write the whole text; see `write_document` for the errors."""
        return self.write_within(text, None)

    def write_within(self, text: str, patience: float | None) -> int:
        """Write the whole text; give up on a reader that takes no byte for `patience` seconds, if not None."""
        data = _encode_text(text, self._encoding)
        try:
            while data:
                if patience is not None and not _poll_writable(self.fileno(), patience):
                    raise OSError(errno.EAGAIN, f"no byte was read for {patience:g} s")  # noqa: TRY301  explained below
                data = data[os.write(self.fileno(), data[:_PIPE_BUF]) :]
        except BrokenPipeError:
            raise
        except OSError as error:  # UnsupportedOperation of a closed stdout included
            raise OutputError(
                f"The output cannot be written to stdout: {error.strerror or error}.",
                hint="Send stdout to a file or a pipe with room.",
            ) from error
        return len(text)


def install_streams() -> None:
    """Replace `sys.stdout` and `sys.stderr`; occupy closed descriptors, or a model's file would take their numbers."""
    codecs.register_error(_ESCAPE_ERRORS, _escape_characters)
    closed = _occupy_closed_descriptors()
    sys.stdout = _as_text_io(StdoutStream(None if 1 in closed else 1, _encoding_of(sys.stdout)))
    sys.stderr = _as_text_io(StderrStream(2, _encoding_of(sys.stderr)))


def write_document(text: str, patience: float | None = None) -> None:
    """Write a command's document to stdout.

    Args:
        text: the document, with its line end.
        patience: seconds after which a reader that takes no byte is given up; None to wait for ever.

    Raises:
        BrokenPipeError: the reader has gone.
        OutputError: stdout is closed, cannot be written, or the reader takes no byte.
    """
    if isinstance(sys.stdout, StdoutStream):
        sys.stdout.write_within(text, patience)
        return
    sys.stdout.write(text)
    sys.stdout.flush()


def _as_text_io(stream: io.TextIOBase) -> TextIO:
    """Return the stream as the type of `sys.stdout`, which no class of our own can be."""
    return stream  # type: ignore[return-value]


def _encoding_of(stream: TextIO | None) -> str:
    """Return the encoding that Python chose for a stream by the locale and PYTHONIOENCODING."""
    return getattr(stream, "encoding", None) or "utf-8"


def _occupy_closed_descriptors() -> set[int]:
    """Open the null device at each closed standard descriptor; return the numbers."""
    closed = set()
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError as error:
            if error.errno == errno.EBADF and os.open(os.devnull, os.O_RDWR) == fd:  # the lowest free number
                os.set_inheritable(fd, True)
                closed.add(fd)
    return closed


def _encode_text(text: str, encoding: str) -> bytes:
    return text.encode(encoding, errors=_ESCAPE_ERRORS)


def _escape_characters(error: UnicodeError) -> tuple[str, int]:
    """Replace characters that an encoding lacks by JSON escapes, so that a JSON document stays one."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end


def _poll_writable(fd: int, seconds: float) -> bool:
    """Return whether the descriptor takes `_PIPE_BUF` bytes at once, or reports an error at once, within `seconds`."""
    if not hasattr(select, "poll"):  # Windows
        return True
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    return bool(poll.poll(seconds * 1000))
