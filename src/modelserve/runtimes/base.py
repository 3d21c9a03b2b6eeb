"""What every runtime offers, and how a model says which rows it takes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

Cell = float | int | str | bool | None
Table = list[list[Cell]]
"""Rows of checked cells, all of one width, in the order of the model's columns."""

Kind = Literal["number", "any", "unused"]


@dataclass(frozen=True)
class Column:
    """One input of the model.

    Attributes:
        name: empty if the model was fitted without names.
        kind: `number` takes numbers and nulls, `any` what the model takes, `unused` may be left out by name.
        example: a value for the example request.
    """

    name: str = ""
    kind: Kind = "number"
    example: Cell = 0


@dataclass(frozen=True)
class Inputs:
    """Which rows a model takes.

    Attributes:
        columns: None if the model does not say how many it takes.
        rest: the kind of every column where `columns` is None.
        text: a row is one string, not a list of cells.
    """

    columns: tuple[Column, ...] | None
    rest: Kind = "any"
    text: bool = False

    @property
    def names(self) -> tuple[str, ...] | None:
        """The names of the columns, in order; None if the model was fitted without."""
        names = tuple(c.name for c in self.columns or ())
        return names if any(names) else None


class Runtime(Protocol):
    """A loaded model. Its methods may be called from several threads at once."""

    library: str
    """Name and version of the library, like `scikit-learn 1.9.1`."""
    kind: str
    """The class of the model, like `RandomForestClassifier`."""
    inputs: Inputs
    classes: list[object] | None
    """The labels of a classifier, in the order of its probabilities; a list of lists if it has several outputs."""
    has_proba: bool
    """Whether `predict_proba` may be called."""

    def predict(self, table: Table) -> Sequence[object]:
        """One plain value, or list of values, for each row.

        Raises:
            RequestError: the model refuses these rows.
        """

    def predict_proba(self, table: Table) -> Sequence[object]:
        """The probability of each class for each row; with several outputs, one such table for each.

        Raises:
            RequestError: the model refuses these rows.
        """
