"""OpenAPI schemas of request and response bodies; the codecs in `protocols` check more than a schema can express."""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, Field

_CELL = {"type": ["number", "string", "boolean", "null"]}
_ROWS = {
    "description": "Rows as lists of values, as objects with column names, or one bare row. null is a missing value.",
    "oneOf": [
        {"title": "rows", "type": "array", "minItems": 1, "items": {"type": "array", "minItems": 1, "items": _CELL}},
        {
            "title": "rows with column names",
            "type": "array",
            "minItems": 1,
            "items": {"type": "object", "additionalProperties": _CELL},
        },
        {"title": "one row", "type": "array", "minItems": 1, "items": _CELL},
        {"title": "one row with column names", "type": "object", "additionalProperties": _CELL},
    ],
}


def build_request_body(*examples: dict[str, Any]) -> dict[str, Any]:
    """Build the `requestBody` of a route that accepts `features` or `instances`."""
    schema = {
        "type": "object",
        "properties": {"features": _ROWS, "instances": _ROWS},
        "oneOf": [{"required": ["features"]}, {"required": ["instances"]}],
    }
    shown = {f"example {i}": {"value": example} for i, example in enumerate(examples, 1)}
    return {"required": True, "content": {"application/json": {"schema": schema, "examples": shown}}}


class Failure(BaseModel):
    """Body of every error response."""

    error: str = Field(examples=["row 0 has 3 values, and the model takes 4"])


class Prediction(BaseModel):
    """Response of /predict: one prediction for each row."""

    prediction: list[Any] = Field(examples=[["setosa"]])
    probabilities: list[Any] | None = Field(
        default=None, description="with proba=true: for each row, the probability of each class"
    )
    classes: list[Any] | None = Field(default=None, description="with proba=true: the classes, in that order")


class Predictions(BaseModel):
    """Response of the v1 protocol."""

    predictions: list[Any] = Field(examples=[["setosa"]])


class Live(BaseModel):
    """Response of the liveness probe."""

    live: Literal[True]


class Ready(BaseModel):
    """Response of the readiness probe, with the reason if not ready."""

    ready: bool
    error: str | None = None


class ModelColumn(BaseModel):
    """Input column of the model."""

    name: str
    takes: str = Field(description="number; any: strings too, as the model judges; unused: may be left out by name")


class ModelFile(BaseModel):
    """Loaded model file: path, size, sha256."""

    path: str
    size: int
    sha256: str


class ModelFacts(BaseModel):
    """Facts and provenance of the served model."""

    name: str
    version: str
    digest: str
    source: str | None = Field(description="null without a receipt")
    verified: bool = Field(description="whether a receipt says what the file must be; it is then that")
    fetched: datetime | None
    fetched_by: str | None
    loaded: datetime
    load_seconds: float
    file: ModelFile
    runtime: str
    kind: str
    features: int | None = Field(description="number of columns; null if the model does not say, or takes texts")
    columns: list[ModelColumn] | None = Field(description="null if the model was fitted without names")
    classes: list[Any] | None
    probabilities: bool
