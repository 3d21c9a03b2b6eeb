"""ASGI app: routes, middleware and error responses."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from modelserve import __version__
from modelserve.engine.inference import InferenceEngine
from modelserve.errors import RequestError
from modelserve.http.middleware import RequestMiddleware
from modelserve.http.routes import JSONResponse, RequestLimits, create_router


def create_app(engine: InferenceEngine, limits: RequestLimits, *, port: int) -> FastAPI:
    """Create the ASGI app; start-up begins to load the model without waiting for the end.

    Args:
        engine: the model and the inference threads.
        limits: bounds of one request.
        port: the configured port, for the example request on the HTML page.
    """

    @asynccontextmanager
    async def run_lifespan(_: FastAPI) -> AsyncIterator[None]:
        engine.repository.start_loading()
        yield
        engine.close_threads()

    app = FastAPI(
        title="modelserve",
        summary="Predictions of one model, and where that model came from.",
        version=__version__,
        lifespan=run_lifespan,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.include_router(create_router(engine, limits, port=port))
    app.add_middleware(RequestMiddleware, engine=engine)
    _add_error_handlers(app)
    return app


def _add_error_handlers(app: FastAPI) -> None:
    """Answer every error as `{"error": message}`."""

    @app.exception_handler(RequestError)
    async def answer_refusal(_: Request, error: RequestError) -> Response:
        return JSONResponse({"error": error.message}, status_code=error.status, headers=error.headers)

    @app.exception_handler(HTTPException)
    async def answer_http_error(request: Request, error: HTTPException) -> Response:
        path = request.scope["path"][:200]
        messages = {404: f"there is nothing at {path}", 405: f"{path} does not take {request.method[:20]}"}
        message = messages.get(error.status_code, str(error.detail))
        return JSONResponse({"error": message}, status_code=error.status_code, headers=error.headers)

    @app.exception_handler(RequestValidationError)
    async def answer_invalid_query(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        return JSONResponse({"error": f"{first['loc'][-1]}: {first['msg']}"}, status_code=400)
