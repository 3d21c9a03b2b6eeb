"""Interface of a runtime, and the values between codec, engine and runtime."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from modelserve.runtimes.signature import InputSignature, Table


class InferenceRequest(NamedTuple):
    """Decoded request: checked rows, and whether to compute class probabilities."""

    table: Table
    with_probabilities: bool = False


class InferenceResponse(NamedTuple):
    """Result of one request, before encoding.

    Attributes:
        predictions: one prediction per row.
        probabilities: class probabilities per row; None unless requested.
        classes: labels of the classes, in the order of the probabilities; None unless the model is a classifier.
    """

    predictions: Sequence[object]
    probabilities: Sequence[object] | None = None
    classes: list[object] | None = None


class Runtime(Protocol):
    """Loaded model; methods may be called from several threads at once."""

    library: str
    """Name and version of the library, like `scikit-learn 1.9.1`."""
    class_name: str
    """Class of the model, like `RandomForestClassifier`."""
    signature: InputSignature
    classes: list[object] | None
    """Labels of a classifier, in the order of the probabilities; a list of lists for a model with several outputs."""
    has_probabilities: bool
    """Whether `predict_probabilities` may be called."""

    def predict(self, table: Table) -> Sequence[object]:
        """Return one plain value, or list of values, for each row.

        Raises:
            RequestError: the model refuses the rows.
        """

    def predict_probabilities(self, table: Table) -> Sequence[object]:
        """Return the probability of each class for each row; with several outputs, one table per output.

        Raises:
            RequestError: the model refuses the rows.
        """
