"""The way between a store and a pull, on which faults are laid: the fault proxy, and toxiproxy if the stream is hit."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from testkit.faultproxy import FaultProxy
from testkit.faults import Rule
from testkit.toxiproxy import Stream
from tests.faults.stored_models import StoredModel


@dataclass
class NetworkRoute:
    """One run's.

    Attributes:
        model: what is pulled.
        proxy: what happens to HTTP.
        stream: what happens below it.
        work: a directory for files that a fault needs.
        nth: which of the fault's variants this is, from 0.
        env: variables of the pull beside the usual; None leaves one out.
    """

    model: StoredModel
    proxy: FaultProxy
    stream: Stream
    directory: Path
    variant: int = 0
    env: dict[str, str | None] = field(default_factory=dict)
    _timers: list[threading.Timer] = field(default_factory=list)

    def remove_faults(self) -> None:
        """Take all faults away."""
        for timer in self._timers:
            timer.join()
        self.stream.reset()
        self.proxy.clear()
        self.env.clear()

    def spoil_downloads(self, **what: Any) -> Rule:
        """Spoil requests for the victim's bytes."""
        return self.proxy.add(**{**self.model.match_downloads(), **what})

    def spoil_metadata(self, **what: Any) -> Rule:
        """Spoil the question that comes first: for the object's state, or for the listing."""
        return self.proxy.add(**{**self.model.match_metadata_requests(), **what})

    def spoil_stream(self, kind: str, requests: int, **attributes: int) -> None:
        """Have toxiproxy spoil the stream from the first request for bytes until so many more have come."""
        added = threading.Event()

        def add() -> None:
            self.stream.add(kind, **attributes)
            added.set()

        def remove() -> None:
            added.wait()
            self.stream.remove(kind)

        self.spoil_downloads(before=add)
        self.proxy.add(**self.model.match_downloads(""), nth=requests, before=remove)

    def refuse_connections(self, seconds: float) -> None:
        """Refuse connections from the first request for bytes on, for a while; the open ones end."""

        def refuse() -> None:
            self.stream.refuse()
            self._timers.append(threading.Timer(seconds, self.stream.accept))
            self._timers[-1].start()

        self.spoil_downloads(before=refuse)

    def change_midway(self, change: Callable[[StoredModel], object]) -> None:
        """Change what is stored after some of the victim's bytes have come."""
        self.spoil_downloads(cut_after=60_000)
        self.spoil_downloads(before=lambda: change(self.model))
