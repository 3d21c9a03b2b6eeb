"""Input signature of a model: columns, accepted cells and row format."""

from dataclasses import dataclass
from typing import Literal

Cell = float | int | str | bool | None
Table = list[list[Cell]]
"""Rows of checked cells, equal in width, in the column order of the model."""

ColumnKind = Literal["number", "any", "unused"]


@dataclass(frozen=True)
class Column:
    """Input column of the model.

    Attributes:
        name: empty for a model fitted without column names.
        kind: `number` accepts numbers and nulls, `any` leaves the check to the model, `unused` may be omitted by name.
        example: a value for the example request.
    """

    name: str = ""
    kind: ColumnKind = "number"
    example: Cell = 0


@dataclass(frozen=True)
class InputSignature:
    """Rows accepted by a model.

    Attributes:
        columns: None for a model that does not state the number of columns.
        default_kind: the kind of every column if `columns` is None.
        text: a row is one string instead of a list of cells.
    """

    columns: tuple[Column, ...] | None
    default_kind: ColumnKind = "any"
    text: bool = False

    @property
    def names(self) -> tuple[str, ...] | None:
        """Return the column names in order; None for a model fitted without names."""
        names = tuple(c.name for c in self.columns or ())
        return names if any(names) else None
