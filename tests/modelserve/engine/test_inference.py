from collections.abc import Sequence
from pathlib import Path

import pytest

from modelserve.engine.inference import EngineLimits, InferenceEngine, check_probabilities, run_inference
from modelserve.engine.repository import ModelSource
from modelserve.errors import NotFoundError, RequestError
from modelserve.runtimes.base import InferenceRequest, InferenceResponse
from modelserve.runtimes.signature import InputSignature, Table


class ConstantRuntime:
    """Runtime with fixed predictions for every table."""

    library = "constant 1"
    class_name = "Constant"
    signature = InputSignature(None)
    has_probabilities = False

    def __init__(self, *predictions: object) -> None:
        """Set the predictions to return."""
        self.predictions = predictions
        self.classes: list[object] | None = ["a", "b"]

    def predict(self, table: Table) -> Sequence[object]:
        """Return the predictions of the constructor."""
        return self.predictions

    def predict_probabilities(self, table: Table) -> Sequence[object]:
        """Return one probability vector per row."""
        return [[0.5, 0.5] for _ in table]


def test_probabilities_are_computed_only_on_request() -> None:
    """The response has predictions and classes; probabilities only if requested."""
    runtime = ConstantRuntime("a")

    plain = run_inference(runtime, InferenceRequest([[1]]))
    full = run_inference(runtime, InferenceRequest([[1]], with_probabilities=True))

    assert plain == InferenceResponse(("a",), None, ["a", "b"])
    assert full == InferenceResponse(("a",), [[0.5, 0.5]], ["a", "b"])


def test_a_wrong_number_of_predictions_is_a_bug() -> None:
    """Predictions that cannot be assigned to rows are a RuntimeError, not an answer."""
    with pytest.raises(RuntimeError, match="Constant gave 2 predictions for 1 rows"):
        run_inference(ConstantRuntime("a", "b"), InferenceRequest([[1]]))


def test_probabilities_of_a_model_without_predict_proba_are_refused() -> None:
    """The refusal names the class of the model."""
    with pytest.raises(RequestError, match="Constant has no predict_proba"):
        check_probabilities(ConstantRuntime("a"))


def test_the_unready_reason_follows_loading_failure_and_draining() -> None:
    """Draining comes before a failed load, a failed load before loading; requests are 503 with the reason."""
    engine = InferenceEngine(ModelSource(Path("m")), EngineLimits(max_requests=1, threads=1))
    reasons = [engine.unready_reason]
    engine.repository.failure = NotFoundError("no model")
    reasons.append(engine.unready_reason)
    engine.draining = True
    reasons.append(engine.unready_reason)

    with pytest.raises(RequestError, match="the server is stopping") as refused:
        engine.get_model()

    assert reasons == ["the model is being loaded", "no model", "the server is stopping"]
    assert (refused.value.status, refused.value.headers) == (503, {"Retry-After": "1"})
