"""Routes of the app. Bodies are read raw, regardless of Content-Type: many clients send none."""

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from typing import Annotated, Any, NamedTuple

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import HTMLResponse

from modelserve.engine.inference import InferenceEngine, check_probabilities, run_inference
from modelserve.engine.repository import LoadedModel
from modelserve.errors import RequestError
from modelserve.http import page, schemas
from modelserve.protocols import Codec, rows, v1
from modelserve.protocols.strict_json import encode_json

_FAILURES: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": schemas.Failure, "description": "The request is wrong; the reason"},
    "503": {"model": schemas.Failure, "description": "Not ready, or too many requests at once"},
}
_MAX_LENGTH_DIGITS = 18  # a Content-Length with more digits exceeds every limit, without conversion
_ROWS_EXAMPLE = {"features": [[5.1, 3.5, 1.4, 0.2]]}
_NAMED_ROWS_EXAMPLE = {"instances": [{"age": 42, "country": "FR"}]}


class RequestLimits(NamedTuple):
    """Bounds of one prediction request.

    Attributes:
        max_body: body size in bytes.
        max_rows: number of rows.
        body_timeout: seconds for the arrival of the body.
    """

    max_body: int
    max_rows: int
    body_timeout: float


class JSONResponse(Response):
    """Response with a strict JSON body."""

    media_type: str | None = "application/json"

    def render(self, content: object) -> bytes:
        """Encode the body with `strict_json.encode_json`."""
        return encode_json(content)


def create_router(engine: InferenceEngine, limits: RequestLimits, *, port: int) -> APIRouter:
    """Create the router with every route of the app."""
    router = APIRouter()
    _add_prediction_routes(router, engine, limits)
    _add_probe_routes(router, engine)
    _add_description_routes(router, engine, port)
    return router


def _add_prediction_routes(router: APIRouter, engine: InferenceEngine, limits: RequestLimits) -> None:
    @router.post(
        "/predict",
        tags=["prediction"],
        summary="Predict",
        responses={200: {"model": schemas.Prediction}, **_FAILURES},
        openapi_extra={"requestBody": schemas.build_request_body(_ROWS_EXAMPLE, _NAMED_ROWS_EXAMPLE)},
    )
    async def predict(
        request: Request,
        proba: Annotated[bool, Query(description="also give the probability of each class")] = False,  # noqa: FBT002
    ) -> Response:
        return await _answer_prediction(engine, limits, request, rows, with_probabilities=proba)

    @router.post(
        "/v1/models/{name}:predict",
        tags=["prediction"],
        summary="Predict, as the v1 protocol of TensorFlow Serving and KServe has it",
        responses={200: {"model": schemas.Predictions}, **_FAILURES},
        openapi_extra={"requestBody": schemas.build_request_body(_NAMED_ROWS_EXAMPLE)},
    )
    async def predict_v1(request: Request, name: str) -> Response:
        served = engine.get_model().name
        if name != served:
            raise RequestError(f"there is no model {name[:80]!r} here, only {served!r}", status=404)
        return await _answer_prediction(engine, limits, request, v1)


async def _answer_prediction(
    engine: InferenceEngine, limits: RequestLimits, request: Request, codec: Codec, *, with_probabilities: bool = False
) -> Response:
    """Read the body; decode, predict and encode in one inference thread; count the outcome."""
    metrics, outcome = engine.metrics, "error"
    model = engine.get_model()

    def compute_response(body: bytes) -> bytes:
        runtime = model.runtime
        with metrics.inference_seconds.time():
            if with_probabilities:
                check_probabilities(runtime)
            decoded = codec.decode_request(
                body, runtime.signature, max_rows=limits.max_rows, with_probabilities=with_probabilities
            )
            return codec.encode_response(run_inference(runtime, decoded))

    try:
        with metrics.in_progress.track_inprogress(), engine.admission.admit_request():
            body = await _read_body(request, limits.max_body, limits.body_timeout)
            content = await engine.run_in_thread(lambda: compute_response(body))
        outcome = "ok"
    except RequestError as error:
        outcome = "overloaded" if error.status == HTTPStatus.SERVICE_UNAVAILABLE else "refused"
        raise
    finally:
        metrics.inferences.labels(outcome).inc()
    return Response(content, media_type="application/json", headers={"X-Model-Digest": model.digest})


async def _read_body(request: Request, limit: int, seconds: float) -> bytes:
    """Read the whole body, at most `limit` bytes, within `seconds`.

    Raises:
        RequestError: the body is larger (413) or slower (408).
    """
    too_large = RequestError(f"the body is larger than {limit} bytes: send fewer rows at once", status=413)
    length = request.headers.get("content-length", "")
    if length.isdecimal() and (len(length) > _MAX_LENGTH_DIGITS or int(length) > limit):
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(seconds):
            async for chunk in request.stream():
                body += chunk
                if len(body) > limit:
                    raise too_large
    except TimeoutError as error:
        raise RequestError(
            f"the body did not arrive within {seconds:g} s", status=408, headers={"Connection": "close"}
        ) from error
    return bytes(body)


def _add_probe_routes(router: APIRouter, engine: InferenceEngine) -> None:
    async def livez() -> Response:
        return JSONResponse({"live": True})

    async def readyz() -> Response:
        if reason := engine.unready_reason:
            return JSONResponse({"ready": False, "error": reason}, status_code=503)
        return JSONResponse({"ready": True})

    async def metrics(request: Request) -> Response:
        engine.metrics.ready.set(not engine.unready_reason)
        content, content_type = engine.metrics.render_metrics(request.headers.get("accept", ""))
        return Response(content, headers={"Content-Type": content_type})

    not_ready = {"model": schemas.Ready, "description": "Not ready; the reason"}
    ready_answers: dict[Any, dict[str, Any]] = {200: {"model": schemas.Ready}, 503: not_ready}
    text = {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}}
    _add_get_route(router, "/livez", livez, "Whether the process runs", {200: {"model": schemas.Live}})
    _add_get_route(router, "/readyz", readyz, "Whether predictions are answered", ready_answers)
    _add_get_route(router, "/metrics", metrics, "Metrics for Prometheus", text, response_class=Response)


def _add_description_routes(router: APIRouter, engine: InferenceEngine, port: int) -> None:
    async def model() -> Response:
        return JSONResponse(describe_model(engine.get_model()))

    async def index(request: Request) -> Response:
        html = page.render_page(engine, host=request.headers.get("host", ""), port=port)
        return HTMLResponse(html, headers={"Content-Security-Policy": page.CONTENT_SECURITY_POLICY})

    answers = {200: {"model": schemas.ModelFacts}, "503": _FAILURES["503"]}
    _add_get_route(router, "/model", model, "Which model is served, and where it came from", answers)
    _add_get_route(router, "/", index, "A page for people", {}, response_class=HTMLResponse)


def _add_get_route(
    router: APIRouter,
    path: str,
    endpoint: Callable[..., Any],
    summary: str,
    responses: dict[Any, dict[str, Any]],
    *,
    response_class: type[Response] = JSONResponse,
) -> None:
    """Add a route for GET, and for HEAD, the method of many load balancers' probes."""
    options: dict[str, Any] = {"responses": responses, "response_class": response_class, "response_model": None}
    router.add_api_route(path, endpoint, methods=["GET"], summary=summary, tags=["service"], **options)
    router.add_api_route(path, endpoint, methods=["HEAD"], include_in_schema=False, **options)


def describe_model(model: LoadedModel) -> dict[str, object]:
    """Describe the served model for /model; the schema is `schemas.ModelFacts`."""
    receipt, runtime = model.receipt, model.runtime
    signature = runtime.signature
    columns = signature.columns
    return {
        "name": model.name,
        "version": model.version,
        "digest": model.digest,
        "source": receipt.source if receipt else None,
        "verified": receipt is not None,
        "fetched": receipt.finished.isoformat() if receipt else None,
        "fetched_by": receipt.tool if receipt else None,
        "loaded": model.loaded_at.isoformat(),
        "load_seconds": model.load_seconds,
        "file": {"path": str(model.file), "size": model.size, "sha256": model.sha256},
        "runtime": runtime.library,
        "kind": runtime.class_name,
        "features": len(columns) if columns is not None else None,
        "columns": [{"name": c.name, "takes": c.kind} for c in columns or ()] if signature.names else None,
        "classes": runtime.classes,
        "probabilities": runtime.has_probabilities,
    }
