"""Client rows checked against the input signature of the model; every message names the row and the column."""

import math
from collections.abc import Sequence

from modelserve.errors import RequestError
from modelserve.runtimes.signature import ColumnKind, InputSignature, Table

_LARGEST = int(math.ldexp(1 - 2**-53, 1024))  # the largest finite float64


def build_table(rows: object, signature: InputSignature, max_rows: int) -> Table:
    """Build a table in column order from lists, from objects with column names, or from a single bare row.

    Raises:
        RequestError: the value holds no rows, more than `max_rows`, or rows refused by the signature.
    """
    listed = _to_row_list(rows, signature)
    if not listed:
        raise RequestError("there are no rows")
    if len(listed) > max_rows:
        raise RequestError(
            f"{len(listed)} rows, and the limit is {max_rows}: send them in several requests", status=413
        )
    if signature.text:
        return [[_check_text(row, i)] for i, row in enumerate(listed)]
    table = _read_objects(listed, signature) if isinstance(listed[0], dict) else _read_lists(listed, signature)
    labels, kinds = _label_columns(signature, len(table[0]))
    for i, row in enumerate(table):
        for j, cell in enumerate(row):
            _check_cell(cell, kinds[j], i, labels[j])
    return table


def _to_row_list(rows: object, signature: InputSignature) -> list[object]:
    """Return the list of rows; wrap a bare row in a list."""
    if isinstance(rows, dict):
        return [rows]
    if signature.text and isinstance(rows, str):
        return [rows]
    if not isinstance(rows, list):
        raise RequestError(f"rows must be a list, not {_describe_value(rows)}")
    if signature.text or not rows or any(isinstance(row, list | dict) for row in rows):
        return rows
    return [rows]


def _check_text(row: object, i: int) -> str:
    if not isinstance(row, str):
        raise RequestError(f"row {i} must be a string, not {_describe_value(row)}: the model takes texts")
    return row


def _read_lists(rows: Sequence[object], signature: InputSignature) -> Table:
    width = len(signature.columns) if signature.columns is not None else None
    table: Table = []
    for i, row in enumerate(rows):
        if not isinstance(row, list):
            raise RequestError(f"row {i} is {_describe_value(row)}, and row 0 a list")
        if width is None:
            width = len(row)
        if len(row) != width or not row:
            wanted = "the model takes" if signature.columns is not None else "row 0 has"
            raise RequestError(
                f"row {i} has {_format_count(len(row))}, and {wanted} {width}" + _hint_columns(signature)
            )
        table.append(row)
    return table


def _read_objects(rows: Sequence[object], signature: InputSignature) -> Table:
    names = signature.names
    if names is None:
        count = f" of {len(signature.columns)} values" if signature.columns is not None else ""
        raise RequestError(f"the model was fitted without column names: send each row as a list{count}")
    assert signature.columns is not None
    known = frozenset(names)
    needed = frozenset(c.name for c in signature.columns if c.kind != "unused")
    table: Table = []
    for i, row in enumerate(rows):
        if not isinstance(row, dict):
            raise RequestError(f"row {i} is {_describe_value(row)}, and row 0 an object")
        if unknown := [name for name in row if name not in known]:
            raise RequestError(
                f"row {i} has {_format_columns(unknown)} that the model does not know" + _hint_columns(signature)
            )
        if not row.keys() >= needed:
            missing = [name for name in names if name in needed and name not in row]
            raise RequestError(f"row {i} lacks {_format_columns(missing)}; null says that a value is missing")
        table.append([row.get(name) for name in names])
    return table


def _label_columns(signature: InputSignature, width: int) -> tuple[list[str], list[ColumnKind]]:
    """Return the label of each column, for messages, and the kind."""
    if signature.columns is None:
        return [f"column {j}" for j in range(width)], [signature.default_kind] * width
    labels = [f"column {c.name!r}" if c.name else f"column {j}" for j, c in enumerate(signature.columns)]
    return labels, [c.kind for c in signature.columns]


def _check_cell(cell: object, kind: ColumnKind, i: int, column: str) -> None:
    if cell is None:
        return
    if type(cell) is float or type(cell) is int:
        if not -_LARGEST <= cell <= _LARGEST:
            raise RequestError(f"row {i}, {column}: the number is beyond what a float64 holds")
        return
    if isinstance(cell, list | dict) or kind == "number":
        wanted = "a number" if kind == "number" else "a single value"
        raise RequestError(f"row {i}, {column} must be {wanted}, not {_describe_value(cell)}")


def _describe_value(value: object) -> str:
    """Describe a value in JSON terms; short values are quoted."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    return f"the string {value[:40]!r}" if isinstance(value, str) else "a number"


def _format_count(count: int) -> str:
    return f"{count} value" + "s" * (count != 1)


def _format_columns(names: list[str]) -> str:
    shown = ", ".join(repr(n[:80]) for n in names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
    return ("columns " if len(names) > 1 else "the column ") + shown


def _hint_columns(signature: InputSignature) -> str:
    names = signature.names
    return f"; its columns are {', '.join(names)}" if names and len(names) <= 30 else ""
