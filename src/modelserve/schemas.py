"""What the OpenAPI page says of bodies. Requests are read by `protocol`, which is stricter than a schema can be."""

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


def request_body(*examples: dict[str, Any]) -> dict[str, Any]:
    """The `requestBody` of a route that takes `features` or `instances`."""
    schema = {
        "type": "object",
        "properties": {"features": _ROWS, "instances": _ROWS},
        "oneOf": [{"required": ["features"]}, {"required": ["instances"]}],
    }
    shown = {f"example {i}": {"value": example} for i, example in enumerate(examples, 1)}
    return {"required": True, "content": {"application/json": {"schema": schema, "examples": shown}}}


class Failure(BaseModel):
    """Every error."""

    error: str = Field(examples=["row 0 has 3 values, and the model takes 4"])


class Prediction(BaseModel):
    """An answer of /predict: one prediction for each row."""

    prediction: list[Any] = Field(examples=[["setosa"]])
    probabilities: list[Any] | None = Field(
        default=None, description="with proba=true: for each row, the probability of each class"
    )
    classes: list[Any] | None = Field(default=None, description="with proba=true: the classes, in that order")


class Predictions(BaseModel):
    """An answer of the v1 protocol."""

    predictions: list[Any] = Field(examples=[["setosa"]])


class Live(BaseModel):
    """The process runs."""

    live: Literal[True]


class Ready(BaseModel):
    """Predictions are answered, or why not."""

    ready: bool
    error: str | None = None


class ModelColumn(BaseModel):
    """A column of the model's input."""

    name: str
    takes: str = Field(description="number; any: strings too, as the model judges; unused: may be left out by name")


class ModelFile(BaseModel):
    """The file that was loaded."""

    path: str
    size: int
    sha256: str


class ModelFacts(BaseModel):
    """Which model is served and where it came from."""

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
