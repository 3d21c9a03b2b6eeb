import json
from typing import Any

import pytest

from modelserve.errors import RequestError
from modelserve.protocols.table import build_table
from modelserve.runtimes.signature import Column, InputSignature, Table

PLAIN = InputSignature((Column(), Column()))
NAMED = InputSignature((Column("age"), Column("country", "any"), Column("id", "unused")))
LOOSE = InputSignature(None)
TEXT = InputSignature(None, text=True)
BIG = 10**400


@pytest.mark.parametrize(
    ("signature", "rows", "expected"),
    [
        (PLAIN, [[1, 2.5], [3, None]], [[1, 2.5], [3, None]]),
        (PLAIN, [1, 2], [[1, 2]]),
        (NAMED, [[1, "FR", 7]], [[1, "FR", 7]]),
        (NAMED, {"country": "FR", "age": 1}, [[1, "FR", None]]),
        (NAMED, [{"id": 3, "country": None, "age": 1}], [[1, None, 3]]),
        (LOOSE, [["a", True, 1]], [["a", True, 1]]),
        (TEXT, ["one", "two"], [["one"], ["two"]]),
        (TEXT, "one", [["one"]]),
    ],
)
def test_rows_are_ordered_by_the_signature(signature: InputSignature, rows: Any, expected: Table) -> None:
    """Lists, objects and bare rows become a table in column order."""
    assert expected == build_table(rows, signature, 10)


@pytest.mark.parametrize(
    ("signature", "rows", "message"),
    [
        (PLAIN, [], "there are no rows"),
        (PLAIN, [[]], "row 0 has 0 values, and the model takes 2"),
        (PLAIN, None, "rows must be a list, not null"),
        (PLAIN, "abc", "rows must be a list, not the string 'abc'"),
        (PLAIN, 3, "rows must be a list, not a number"),
        (PLAIN, [1, 2, 3], "row 0 has 3 values, and the model takes 2"),
        (PLAIN, [[1, 2], [3]], "row 1 has 1 value, and the model takes 2"),
        (LOOSE, [[1, 2], [3]], "row 1 has 1 value, and row 0 has 2"),
        (PLAIN, [[1, 2], 3], "row 1 is a number, and row 0 a list"),
        (PLAIN, [[1, 2], {"a": 1}], "row 1 is an object, and row 0 a list"),
        (NAMED, [{"age": 1, "country": "FR"}, [1]], "row 1 is a list, and row 0 an object"),
        (PLAIN, [[1, True]], "row 0, column 1 must be a number, not true"),
        (PLAIN, [[1, "2"]], "row 0, column 1 must be a number, not the string '2'"),
        (PLAIN, [[1, [2]]], "row 0, column 1 must be a number, not a list"),
        (PLAIN, [[1, {}]], "row 0, column 1 must be a number, not an object"),
        (PLAIN, [[1, BIG]], "row 0, column 1: the number is beyond what a float64 holds"),
        (PLAIN, [[float("-inf"), 1]], "row 0, column 0: the number is beyond what a float64 holds"),
        (NAMED, [{"age": 1, "country": ["FR"]}], "row 0, column 'country' must be a single value, not a list"),
        (NAMED, [{"age": "1", "country": "FR"}], "row 0, column 'age' must be a number, not the string '1'"),
        (
            NAMED,
            [{"age": 1, "country": "FR", "sex": 1, "x": 1}],
            "row 0 has columns 'sex', 'x' that the model does not know; its columns are age, country, id",
        ),
        (NAMED, [{"age": 1}], "row 0 lacks the column 'country'; null says that a value is missing"),
        (NAMED, [[1]], "row 0 has 1 value, and the model takes 3; its columns are age, country, id"),
        (PLAIN, {"a": 1}, "the model was fitted without column names: send each row as a list of 2 values"),
        (TEXT, ["a", 1], "row 1 must be a string, not a number: the model takes texts"),
        (TEXT, [["a"]], "row 0 must be a string, not a list: the model takes texts"),
    ],
)
def test_a_refused_row_is_reported_with_row_and_column(signature: InputSignature, rows: Any, message: str) -> None:
    """A row refused by the signature is a RequestError 400 with row, column and expectation."""
    with pytest.raises(RequestError) as refused:
        build_table(rows, signature, 10)

    assert (message, 400) == (refused.value.message, refused.value.status)


def test_rows_beyond_the_limit_are_413() -> None:
    """More rows than the limit are a RequestError 413 with the limit."""
    with pytest.raises(RequestError, match="3 rows, and the limit is 2") as refused:
        build_table([[1, 2]] * 3, PLAIN, 2)

    assert refused.value.status == 413


def test_the_largest_float64_is_accepted() -> None:
    """The largest finite float64 is accepted, as float and as integer."""
    largest = json.loads("1.7976931348623157e308")

    assert [[largest, int(largest)]] == build_table([[largest, int(largest)]], PLAIN, 1)
