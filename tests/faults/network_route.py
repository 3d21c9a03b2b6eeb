"""Route between store and pull into which faults are injected: the fault proxy, and toxiproxy for the TCP stream."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from testkit.fault_proxy import FaultProxy
from testkit.fault_rules import FaultRule
from testkit.toxiproxy import ToxicStream
from tests.faults.stored_models import StoredModel


@dataclass
class NetworkRoute:
    """Route of a single run.

    Attributes:
        model: the model pulled.
        proxy: injects faults into HTTP.
        stream: injects faults into TCP.
        directory: a directory for files of a fault.
        variant: number of the fault's variant, from 0.
        env: more variables of the pull; None removes a variable.
    """

    model: StoredModel
    proxy: FaultProxy
    stream: ToxicStream
    directory: Path
    variant: int = 0
    env: dict[str, str | None] = field(default_factory=dict)
    _timers: list[threading.Timer] = field(default_factory=list)

    def remove_faults(self) -> None:
        """Remove all faults from the route."""
        for timer in self._timers:
            timer.join()
        self.stream.remove_all_toxics()
        self.proxy.clear()
        self.env.clear()

    def spoil_downloads(self, **what: Any) -> FaultRule:
        """Spoil requests for the victim's bytes."""
        return self.proxy.add_rule(**{**self.model.match_downloads(), **what})

    def spoil_metadata(self, **what: Any) -> FaultRule:
        """Spoil the first metadata request: for the object's state or for the listing."""
        return self.proxy.add_rule(**{**self.model.match_metadata_requests(), **what})

    def spoil_stream(self, kind: str, requests: int, **attributes: int) -> None:
        """Spoil the TCP stream from the first download request until `requests` more have arrived."""
        added = threading.Event()

        def add() -> None:
            self.stream.add_toxic(kind, **attributes)
            added.set()

        def remove() -> None:
            added.wait()
            self.stream.remove_toxic(kind)

        self.spoil_downloads(before=add)
        self.proxy.add_rule(**self.model.match_downloads(""), nth=requests, before=remove)

    def refuse_connections(self, seconds: float) -> None:
        """Refuse connections for some seconds from the first download request on; open connections end."""

        def refuse() -> None:
            self.stream.refuse_connections()
            self._timers.append(threading.Timer(seconds, self.stream.accept_connections))
            self._timers[-1].start()

        self.spoil_downloads(before=refuse)

    def change_midway(self, change: Callable[[StoredModel], object]) -> None:
        """Change a stored object after some of the victim's bytes have arrived."""
        self.spoil_downloads(cut_after=60_000)
        self.spoil_downloads(before=lambda: change(self.model))
