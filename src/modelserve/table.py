"""Rows as a client sends them, checked against what the model takes; every message says which row and column."""

import math
from collections.abc import Sequence

from modelserve.errors import RequestError
from modelserve.runtimes.base import Inputs, Kind, Table

_LARGEST = int(math.ldexp(1 - 2**-53, 1024))  # the largest finite float64


def tabulate(rows: object, inputs: Inputs, max_rows: int) -> Table:
    """Rows in the order of the model's columns: from lists, from objects with column names, or from one bare row.

    Raises:
        RequestError: they are no rows, too many, or not what the model takes.
    """
    listed = _as_list(rows, inputs)
    if not listed:
        raise RequestError("there are no rows")
    if len(listed) > max_rows:
        raise RequestError(
            f"{len(listed)} rows, and the limit is {max_rows}: send them in several requests", status=413
        )
    if inputs.text:
        return [[_text(row, i)] for i, row in enumerate(listed)]
    table = _from_objects(listed, inputs) if isinstance(listed[0], dict) else _from_lists(listed, inputs)
    labels, kinds = _columns(inputs, len(table[0]))
    for i, row in enumerate(table):
        for j, cell in enumerate(row):
            _check_cell(cell, kinds[j], i, labels[j])
    return table


def _as_list(rows: object, inputs: Inputs) -> list[object]:
    """The rows; a bare one is made a list of one."""
    if isinstance(rows, dict):
        return [rows]
    if inputs.text and isinstance(rows, str):
        return [rows]
    if not isinstance(rows, list):
        raise RequestError(f"rows must be a list, not {_name(rows)}")
    if inputs.text or not rows or any(isinstance(row, list | dict) for row in rows):
        return rows
    return [rows]


def _text(row: object, i: int) -> str:
    if not isinstance(row, str):
        raise RequestError(f"row {i} must be a string, not {_name(row)}: the model takes texts")
    return row


def _from_lists(rows: Sequence[object], inputs: Inputs) -> Table:
    width = len(inputs.columns) if inputs.columns is not None else None
    table: Table = []
    for i, row in enumerate(rows):
        if not isinstance(row, list):
            raise RequestError(f"row {i} is {_name(row)}, and row 0 a list")
        if width is None:
            width = len(row)
        if len(row) != width or not row:
            wanted = "the model takes" if inputs.columns is not None else "row 0 has"
            raise RequestError(f"row {i} has {_count(len(row))}, and {wanted} {width}" + _expected(inputs))
        table.append(row)
    return table


def _from_objects(rows: Sequence[object], inputs: Inputs) -> Table:
    names = inputs.names
    if names is None:
        wanted = f" of {len(inputs.columns)} values" if inputs.columns is not None else ""
        raise RequestError(f"the model was fitted without column names: send each row as a list{wanted}")
    assert inputs.columns is not None
    known = frozenset(names)
    needed = frozenset(c.name for c in inputs.columns if c.kind != "unused")
    table: Table = []
    for i, row in enumerate(rows):
        if not isinstance(row, dict):
            raise RequestError(f"row {i} is {_name(row)}, and row 0 an object")
        if unknown := [name for name in row if name not in known]:
            raise RequestError(
                f"row {i} has {_columns_named(unknown)} that the model does not know" + _expected(inputs)
            )
        if not row.keys() >= needed:
            missing = [name for name in names if name in needed and name not in row]
            raise RequestError(f"row {i} lacks {_columns_named(missing)}; null says that a value is missing")
        table.append([row.get(name) for name in names])
    return table


def _columns(inputs: Inputs, width: int) -> tuple[list[str], list[Kind]]:
    """How messages call each column, and what it takes."""
    if inputs.columns is None:
        return [f"column {j}" for j in range(width)], [inputs.rest] * width
    labels = [f"column {c.name!r}" if c.name else f"column {j}" for j, c in enumerate(inputs.columns)]
    return labels, [c.kind for c in inputs.columns]


def _check_cell(cell: object, kind: Kind, i: int, column: str) -> None:
    if cell is None:
        return
    if type(cell) is float or type(cell) is int:
        if not -_LARGEST <= cell <= _LARGEST:
            raise RequestError(f"row {i}, {column}: the number is beyond what a float64 holds")
        return
    if isinstance(cell, list | dict) or kind == "number":
        wanted = "a number" if kind == "number" else "a single value"
        raise RequestError(f"row {i}, {column} must be {wanted}, not {_name(cell)}")


def _name(value: object) -> str:
    """What JSON calls the value, with the value itself if it is short."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    return f"the string {value[:40]!r}" if isinstance(value, str) else "a number"


def _count(n: int) -> str:
    return f"{n} value" + "s" * (n != 1)


def _columns_named(names: list[str]) -> str:
    shown = ", ".join(repr(n[:80]) for n in names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
    return ("columns " if len(names) > 1 else "the column ") + shown


def _expected(inputs: Inputs) -> str:
    names = inputs.names
    return f"; its columns are {', '.join(names)}" if names and len(names) <= 30 else ""
