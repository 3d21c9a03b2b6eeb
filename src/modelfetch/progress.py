"""Progress of a pull or push: the port through which all rooms report; the console decides about display."""

from typing import Protocol


class Progress(Protocol):
    """Receiver of progress events; every method may be called from any thread."""

    def start_phase(self, label: str, total: int | None) -> None:
        """Start a phase of `total` bytes; `label` names action and object, as in "Fetching s3://b/k"."""
        ...

    def add_bytes(self, count: int) -> None:
        """Add `count` bytes to the phase; a negative count takes back bytes that must be fetched again."""
        ...

    def end_phase(self) -> None:
        """End the phase: every byte has arrived."""
        ...

    def log_info(self, message: str, **facts: object) -> None:
        """Report an event for information, with structured facts."""
        ...

    def log_warning(self, message: str, **facts: object) -> None:
        """Report a problem that the user should fix, with structured facts."""
        ...


class SilentProgress:
    """Progress receiver that ignores all events."""

    def start_phase(self, label: str, total: int | None) -> None:
        """Ignore the start of a phase."""

    def add_bytes(self, count: int) -> None:
        """Ignore a number of bytes."""

    def end_phase(self) -> None:
        """Ignore the end of a phase."""

    def log_info(self, message: str, **facts: object) -> None:
        """Ignore an event for information."""

    def log_warning(self, message: str, **facts: object) -> None:
        """Ignore a report of a problem."""
