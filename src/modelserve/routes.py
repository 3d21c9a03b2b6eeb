"""The routes. Bodies are read raw, whatever their Content-Type: many clients send none."""

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import HTMLResponse

from modelserve import page, protocol, schemas
from modelserve.errors import RequestError
from modelserve.model import Model
from modelserve.protocol import Answer
from modelserve.service import Service

_FAILURES: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": schemas.Failure, "description": "The request is wrong; the reason"},
    "503": {"model": schemas.Failure, "description": "Not ready, or too many requests at once"},
}
_LENGTH_DIGITS = 18  # longer numbers of bytes need no conversion to be too large
_ROWS = {"features": [[5.1, 3.5, 1.4, 0.2]]}
_NAMED = {"instances": [{"age": 42, "country": "FR"}]}


class JSON(Response):
    """A value as strict JSON."""

    media_type: str | None = "application/json"

    def render(self, content: object) -> bytes:
        """See `protocol.encode`."""
        return protocol.encode(content)


def make_router(service: Service) -> APIRouter:
    """All routes of the app."""
    router = APIRouter()
    _predictions(router, service)
    _probes(router, service)
    _descriptions(router, service)
    return router


def _predictions(router: APIRouter, service: Service) -> None:
    @router.post(
        "/predict",
        tags=["prediction"],
        summary="Predict",
        responses={200: {"model": schemas.Prediction}, **_FAILURES},
        openapi_extra={"requestBody": schemas.request_body(_ROWS, _NAMED)},
    )
    async def predict(
        request: Request,
        proba: Annotated[bool, Query(description="also give the probability of each class")] = False,  # noqa: FBT002
    ) -> Response:
        def render(model: Model, answer: Answer) -> dict[str, object]:
            if not proba:
                return {"prediction": answer.predictions}
            return {
                "prediction": answer.predictions,
                "probabilities": answer.probabilities,
                "classes": model.runtime.classes,
            }

        return await _predict(service, request, render, proba=proba)

    @router.post(
        "/v1/models/{name}:predict",
        tags=["prediction"],
        summary="Predict, as the v1 protocol of TensorFlow Serving and KServe has it",
        responses={200: {"model": schemas.Predictions}, **_FAILURES},
        openapi_extra={"requestBody": schemas.request_body(_NAMED)},
    )
    async def predict_v1(request: Request, name: str) -> Response:
        served = service.ready_model().name
        if name != served:
            raise RequestError(f"there is no model {name[:80]!r} here, only {served!r}", status=404)
        return await _predict(service, request, lambda _, answer: {"predictions": answer.predictions})


async def _predict(
    service: Service, request: Request, render: Callable[[Model, Answer], dict[str, object]], *, proba: bool = False
) -> Response:
    """Read the body, compute in a thread, answer; and count what came of it."""
    metrics, outcome = service.metrics, "error"
    model = service.ready_model()

    def work(body: bytes) -> bytes:
        with metrics.inference_seconds.time():
            answer = protocol.answer(model, body, proba=proba, max_rows=service.settings.max_rows)
            return protocol.encode(render(model, answer))

    try:
        with metrics.in_progress.track_inprogress():
            async with service.slot():
                body = await _body(request, service.settings.max_body, service.settings.body_timeout)
                content = await service.compute(lambda: work(body))
        outcome = "ok"
    except RequestError as error:
        outcome = "overloaded" if error.status == HTTPStatus.SERVICE_UNAVAILABLE else "refused"
        raise
    finally:
        metrics.inferences.labels(outcome).inc()
    return Response(content, media_type="application/json", headers={"X-Model-Digest": model.digest})


async def _body(request: Request, limit: int, seconds: float) -> bytes:
    """The whole body, of at most `limit` bytes, within `seconds`.

    Raises:
        RequestError: it is larger (413) or slower (408).
    """
    large = RequestError(f"the body is larger than {limit} bytes: send fewer rows at once", status=413)
    length = request.headers.get("content-length", "")
    if length.isdecimal() and (len(length) > _LENGTH_DIGITS or int(length) > limit):
        raise large
    body = bytearray()
    try:
        async with asyncio.timeout(seconds):
            async for chunk in request.stream():
                body += chunk
                if len(body) > limit:
                    raise large
    except TimeoutError as error:
        raise RequestError(
            f"the body did not arrive within {seconds:g} s", status=408, headers={"Connection": "close"}
        ) from error
    return bytes(body)


def _probes(router: APIRouter, service: Service) -> None:
    async def livez() -> Response:
        return JSON({"live": True})

    async def readyz() -> Response:
        if trouble := service.trouble:
            return JSON({"ready": False, "error": trouble}, status_code=503)
        return JSON({"ready": True})

    async def metrics(request: Request) -> Response:
        service.metrics.ready.set(not service.trouble)
        content, content_type = service.metrics.expose(request.headers.get("accept", ""))
        return Response(content, headers={"Content-Type": content_type})

    not_ready = {"model": schemas.Ready, "description": "Not ready; the reason"}
    _get(router, "/livez", livez, "Whether the process runs", {200: {"model": schemas.Live}})
    _get(router, "/readyz", readyz, "Whether predictions are answered", {200: {"model": schemas.Ready}, 503: not_ready})
    text = {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}}
    _get(router, "/metrics", metrics, "Metrics for Prometheus", text, response_class=Response)


def _descriptions(router: APIRouter, service: Service) -> None:
    async def model() -> Response:
        return JSON(facts(service.ready_model()))

    async def index(request: Request) -> Response:
        host = request.headers.get("host", "")
        return HTMLResponse(page.render(service, host), headers={"Content-Security-Policy": page.POLICY})

    answers = {200: {"model": schemas.ModelFacts}, "503": _FAILURES["503"]}
    _get(router, "/model", model, "Which model is served, and where it came from", answers)
    _get(router, "/", index, "A page for people", {}, response_class=HTMLResponse)


def _get(
    router: APIRouter,
    path: str,
    endpoint: Callable[..., Any],
    summary: str,
    responses: dict[Any, dict[str, Any]],
    *,
    response_class: type[Response] = JSON,
) -> None:
    """A route for GET, and for HEAD, which some load balancers probe with."""
    options: dict[str, Any] = {"responses": responses, "response_class": response_class, "response_model": None}
    router.add_api_route(path, endpoint, methods=["GET"], summary=summary, tags=["service"], **options)
    router.add_api_route(path, endpoint, methods=["HEAD"], include_in_schema=False, **options)


def facts(model: Model) -> dict[str, object]:
    """What /model says; `schemas.ModelFacts` describes it."""
    receipt, runtime = model.receipt, model.runtime
    columns = runtime.inputs.columns
    return {
        "name": model.name,
        "version": model.version,
        "digest": model.digest,
        "source": receipt.source if receipt else None,
        "verified": receipt is not None,
        "fetched": receipt.finished.isoformat() if receipt else None,
        "fetched_by": receipt.tool if receipt else None,
        "loaded": model.loaded.isoformat(),
        "load_seconds": model.seconds,
        "file": {"path": str(model.file), "size": model.size, "sha256": model.sha256},
        "runtime": runtime.library,
        "kind": runtime.kind,
        "features": len(columns) if columns is not None else None,
        "columns": [{"name": c.name, "takes": c.kind} for c in columns or ()] if runtime.inputs.names else None,
        "classes": runtime.classes,
        "probabilities": runtime.has_proba,
    }
