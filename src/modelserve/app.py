"""The app, and the process round it: command line → settings → server → exit code."""

import argparse
import logging
import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from modelserve import __version__, logs, server, settings
from modelserve.errors import ConfigError, RequestError, StartError
from modelserve.middleware import Around
from modelserve.routes import JSON, make_router
from modelserve.service import Service
from modelserve.settings import Settings

log = logging.getLogger(__name__)


def create_app(service: Service) -> FastAPI:
    """The ASGI app; its start-up begins to load the model, and does not wait for it."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.start_loading()
        yield
        service.close()

    app = FastAPI(
        title="modelserve",
        summary="Predictions of one model, and where that model came from.",
        version=__version__,
        lifespan=lifespan,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.include_router(make_router(service))
    app.add_middleware(Around, service=service)

    @app.exception_handler(RequestError)
    async def refused(_: Request, error: RequestError) -> Response:
        return JSON({"error": error.message}, status_code=error.status, headers=error.headers)

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        path = request.scope["path"][:200]
        messages = {404: f"there is nothing at {path}", 405: f"{path} does not take {request.method[:20]}"}
        message = messages.get(error.status_code, str(error.detail))
        return JSON({"error": message}, status_code=error.status_code, headers=error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        return JSON({"error": f"{first['loc'][-1]}: {first['msg']}"}, status_code=400)

    return app


def _parser() -> argparse.ArgumentParser:
    fields = Settings.model_fields.items()
    lines = [f"  {settings.variable(name):<34} {field.description}{_default(name)}" for name, field in fields]
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


def _default(name: str) -> str:
    default = Settings.model_fields[name].default
    if isinstance(default, bool):
        return f" [{str(default).lower()}]"
    if isinstance(default, float):
        return f" [{default:g}s]"
    return f" [{default}]" if isinstance(default, int | str | Path) and default != "" else ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until a signal comes; 0 after a graceful end, else the code that `errors` draws."""
    flags = _parser().parse_args(arguments)
    logs.setup("auto", "info")
    try:
        chosen = settings.read(host=flags.host, port=flags.port)
    except ConfigError as error:
        logs.failure(error, Settings.model_fields["termination_log"].default)
        return error.code
    logs.setup(chosen.log_format, chosen.log_level)
    for warning in settings.unknown(os.environ):
        log.warning(warning)
    try:
        _serve(chosen)
    except StartError as error:
        logs.failure(error, chosen.termination_log, chosen.model_path)
        return error.code
    return 0


def _serve(chosen: Settings) -> None:
    """Listen, load, serve, stop.

    Raises:
        StartError: the port cannot be had, or the model cannot be served.
    """
    server.warn_of_loopback(chosen, in_cluster="KUBERNETES_SERVICE_HOST" in os.environ)
    listener = server.listen(chosen.host, chosen.port)
    service = Service(chosen)
    address, port = listener.getsockname()[:2]
    log.info("listening", extra={"address": address, "port": port, "model_path": str(chosen.model_path)})
    server.Server(create_app(service), service).run(sockets=[listener])
    if service.failure is not None:
        raise service.failure


if __name__ == "__main__":
    sys.exit(main())
