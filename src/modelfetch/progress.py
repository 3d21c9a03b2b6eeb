"""Progress of a pull or push: the port through which all rooms report; the console decides about display."""

from typing import Protocol


class Progress(Protocol):
    """Receiver of progress events; every method may be called from any thread."""

    def begin(self, what: str, total: int | None) -> None:
        """Start a phase of `total` bytes; `label` names action and object, as in "Fetching s3://b/k"."""
        ...

    def advance(self, count: int) -> None:
        """Add `count` bytes to the phase; a negative count takes back bytes that must be fetched again."""
        ...

    def end(self) -> None:
        """End the phase: every byte has arrived."""
        ...

    def note(self, message: str, **facts: object) -> None:
        """Report an event for information, with structured facts."""
        ...

    def warn(self, message: str, **facts: object) -> None:
        """Report a problem that the user should fix, with structured facts."""
        ...


class SilentProgress:
    """Progress receiver that ignores all events."""

    def begin(self, what: str, total: int | None) -> None:
        """Ignore the start of a phase."""

    def advance(self, count: int) -> None:
        """Ignore a number of bytes."""

    def end(self) -> None:
        """Ignore the end of a phase."""

    def note(self, message: str, **facts: object) -> None:
        """Ignore an event for information."""

    def warn(self, message: str, **facts: object) -> None:
        """Ignore a report of a problem."""
