"""State of one command: settings, console, secrets, signals, and the failure report."""

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from modelfetch.cli.console import Console
from modelfetch.cli.environment import (
    Environment,
    find_misspelt_names,
    find_termination_log,
    list_secrets,
    read_environment,
)
from modelfetch.cli.failure_report import print_traceback, write_termination_message
from modelfetch.cli.redaction import Redactor
from modelfetch.cli.settings import Settings, load_settings
from modelfetch.progress import Progress
from modelfetch.signals import SignalGuard
from modelfetch.sources import mask_address, parse_uri
from modelfetch.uri import ModelURI


class CommandContext:
    """State of one command, complete enough to report a failure before any setting is read.

    Attributes:
        guard: signal handlers of the command.
        redactor: secrets to remove from every output.
        console: events and failures on stderr.
        termination_log: file for the failure report; None to write none.
        source: address for the failure report, without secrets.
        from_environment: whether the environment, not arguments, names the model.
        debug: whether to print the traceback of an error.
        mark_ready: callback at the end of the process's start: a source was opened, or cannot be.
    """

    def __init__(self, guard: SignalGuard, mark_ready: Callable[[], None] = lambda: None) -> None:
        """Create a context with console and termination log by the environment alone."""
        self.guard = guard
        self.mark_ready = mark_ready
        self.redactor = Redactor(list_secrets())
        self.console = Console(redactor=self.redactor)
        self.termination_log = find_termination_log()
        self.source = ""
        self.from_environment = False
        self.debug = False

    @property
    def progress(self) -> Progress:
        """Progress of a use case, on the console; its first event ends the start of the process."""
        return StartupProgress(self.console, self.mark_ready)

    def load_settings(self, flags: dict[str, Any], *, debug: bool) -> tuple[Settings, Environment]:
        """Load settings and environment; configure console, termination log and deadline by the settings."""
        self.debug = debug
        settings, environment = load_settings(flags), read_environment()
        self.termination_log = settings.termination_log or self.termination_log
        self.console = Console(settings.log_format, settings.log_level, settings.progress, self.redactor)
        for name, nearest in find_misspelt_names():
            suggestion = f"; did you mean {nearest}?" if nearest else "."
            self.console.log_warning(f"{name} means nothing to modelfetch{suggestion}")
        if settings.timeout is not None:
            self.guard.set_deadline(settings.timeout)
        return settings, environment

    def parse_address(self, text: str) -> ModelURI:
        """Parse the address of the model; failure reports name the address without the secrets in it."""
        self.source = mask_address(text)
        uri = parse_uri(text)
        self.source = str(uri)
        self.redactor.hide([urlsplit(uri.url).query])
        return uri

    def report_failure(self, report: dict[str, object], error: BaseException | None = None) -> None:
        """Report a failure in the termination log and on stderr, with the traceback if asked for."""
        self.guard.ignore()  # the report must be complete, whatever signal follows
        self.console.end_phase()
        if self.termination_log is not None:
            try:
                write_termination_message(self.termination_log, report, self.redactor)
            except OSError as refusal:
                where = f"{self.termination_log}: {refusal.strerror}"
                self.console.log_warning(f"The termination message cannot be written to {where}.")
        self.console.close()
        self.console.report_failure(report)
        if error is not None and self.debug:
            print_traceback(error, self.redactor)


class StartupProgress:
    """Progress with a callback before the first event; forwards all events."""

    def __init__(self, progress: Progress, on_first_event: Callable[[], None]) -> None:
        """Forward all events to `progress`."""
        self._progress = progress
        self._on_first_event: Callable[[], None] | None = on_first_event

    def start_phase(self, label: str, total: int | None) -> None:
        """Forward the start of a transfer; see `Progress.start_phase`."""
        self._mark_first_event()
        self._progress.start_phase(label, total)

    def add_bytes(self, count: int) -> None:
        """Forward the count of bytes; see `Progress.add_bytes`."""
        self._progress.add_bytes(count)

    def end_phase(self) -> None:
        """Forward the end of a transfer; see `Progress.end_phase`."""
        self._progress.end_phase()

    def log_info(self, message: str, **facts: object) -> None:
        """Forward a message of level info; see `Progress.log_info`."""
        self._mark_first_event()
        self._progress.log_info(message, **facts)

    def log_warning(self, message: str, **facts: object) -> None:
        """Forward a message of level warning; see `Progress.log_warning`."""
        self._mark_first_event()
        self._progress.log_warning(message, **facts)

    def _mark_first_event(self) -> None:
        callback, self._on_first_event = self._on_first_event, None
        if callback is not None:
            callback()
