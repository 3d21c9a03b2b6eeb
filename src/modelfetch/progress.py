"""How a pull tells what it does: a port; only the console knows what becomes of it."""

from typing import Protocol


class Progress(Protocol):
    """Told of a pull's events, from any thread."""

    def begin(self, what: str, total: int | None) -> None:
        """Begin to move `total` bytes; `what` says which and where, as in "Fetching s3://b/k"."""
        ...

    def advance(self, count: int) -> None:
        """`count` more bytes are there; negative when they have to be fetched again."""
        ...

    def end(self) -> None:
        """Every byte is there."""
        ...

    def note(self, message: str, **facts: object) -> None:
        """Something worth knowing happened."""
        ...

    def warn(self, message: str, **facts: object) -> None:
        """Something worth mending happened."""
        ...


class SilentProgress:
    """Tells nobody."""

    def begin(self, what: str, total: int | None) -> None:
        """See `Progress.begin`."""

    def advance(self, count: int) -> None:
        """See `Progress.advance`."""

    def end(self) -> None:
        """See `Progress.end`."""

    def note(self, message: str, **facts: object) -> None:
        """See `Progress.note`."""

    def warn(self, message: str, **facts: object) -> None:
        """See `Progress.warn`."""
