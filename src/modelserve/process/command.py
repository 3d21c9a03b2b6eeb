"""Command line of modelserve: flags → settings → engine → server → exit code."""

import argparse
import logging
import os
from collections.abc import Sequence
from pathlib import Path

from modelserve import __version__
from modelserve.engine.inference import EngineLimits, InferenceEngine
from modelserve.engine.repository import ModelSource
from modelserve.errors import ConfigError, StartError
from modelserve.http.app import create_app
from modelserve.http.routes import RequestLimits
from modelserve.process import logs
from modelserve.process.server import Server, ServerTimes, open_listener, warn_about_loopback
from modelserve.process.settings import Settings, find_unknown_variables, get_variable, read_settings

log = logging.getLogger(__name__)


def run_server(arguments: Sequence[str] | None = None) -> int:
    """Serve until a signal arrives; return 0 after a graceful end, else an exit code of `errors`."""
    flags = _create_parser().parse_args(arguments)
    logs.configure_logging("auto", "info")
    try:
        settings = read_settings(host=flags.host, port=flags.port)
    except ConfigError as error:
        logs.report_failure(error, Settings.model_fields["termination_log"].default)
        return error.code
    logs.configure_logging(settings.log_format, settings.log_level)
    for warning in find_unknown_variables(os.environ):
        log.warning(warning)
    try:
        _serve_model(settings)
    except StartError as error:
        logs.report_failure(error, settings.termination_log, settings.model_path)
        return error.code
    return 0


def create_engine(settings: Settings) -> InferenceEngine:
    """Create the engine with the values of the settings; loading has not begun."""
    source = ModelSource(
        settings.model_path,
        settings.model_name,
        require_receipt=settings.require_receipt,
        allow_version_mismatch=settings.allow_version_mismatch,
    )
    return InferenceEngine(source, EngineLimits(settings.max_requests, settings.threads))


def create_server(settings: Settings, engine: InferenceEngine) -> Server:
    """Create the HTTP server of an engine with the values of the settings."""
    limits = RequestLimits(settings.max_body, settings.max_rows, settings.body_timeout)
    app = create_app(engine, limits, port=settings.port)
    return Server(app, engine, ServerTimes(settings.keep_alive, settings.drain, settings.stop_timeout))


def _serve_model(settings: Settings) -> None:
    """Listen, load, serve, stop.

    Raises:
        StartError: the port is unavailable, or the model cannot be served.
    """
    warn_about_loopback(settings.host, in_cluster="KUBERNETES_SERVICE_HOST" in os.environ)
    listener = open_listener(settings.host, settings.port)
    engine = create_engine(settings)
    address, port = listener.getsockname()[:2]
    log.info("listening", extra={"address": address, "port": port, "model_path": str(settings.model_path)})
    create_server(settings, engine).run(sockets=[listener])
    if engine.repository.failure is not None:
        raise engine.repository.failure


def _create_parser() -> argparse.ArgumentParser:
    fields = Settings.model_fields.items()
    lines = [f"  {get_variable(name):<34} {field.description}{_format_default(name)}" for name, field in fields]
    parser = argparse.ArgumentParser(
        prog="modelserve",
        description="Serve the model at MODEL_PATH over HTTP.",
        epilog="environment:\n" + "\n".join(lines),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--host", help="address to listen on (MODELSERVE_HOST)")
    parser.add_argument("--port", type=int, help="port to listen on (MODELSERVE_PORT)")
    parser.add_argument("--version", action="version", version=f"modelserve {__version__}")
    return parser


def _format_default(name: str) -> str:
    default = Settings.model_fields[name].default
    if isinstance(default, bool):
        return f" [{str(default).lower()}]"
    if isinstance(default, float):
        return f" [{default:g}s]"
    return f" [{default}]" if isinstance(default, int | str | Path) and default != "" else ""
