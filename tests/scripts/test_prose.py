from pathlib import Path

import pytest

from scripts.prose import summarise

MODULE = '''
"""Read it and that."""


class Reader:
    """Reads `it` from https://it.example/ in order."""

    def __init__(self) -> None:
        """Open it."""

    def read_next_line(self) -> str:
        """Return the next line of the file.

        Raises:
            OSError: the file is gone.
        """

    def _close(self) -> None: ...
'''


@pytest.fixture
def module(tmp_path: Path) -> Path:
    """A file with names and docstrings of every kind."""
    path = tmp_path / "reader.py"
    path.write_text(MODULE)
    return path


def test_words_of_function_names_are_counted_without_special_methods(module: Path) -> None:
    """`read_next_line` has three words, `_close` one, `__init__` is Python's."""
    summary = summarise([module])

    assert sorted(summary.functions.values()) == [1, 3]
    assert summary.words_per_name == 2.0


def test_fillers_are_counted_without_code_links_and_headings(module: Path) -> None:
    """Of 26 words, "it" twice and "that" once are fillers; `it` in code and in a link is none."""
    summary = summarise([module])

    fillers = {doc.where.rpartition(" ")[2]: (doc.fillers, len(doc.words)) for doc in summary.docstrings}

    assert fillers == {"module": (2, 4), "Reader": (0, 6), "__init__": (1, 2), "read_next_line": (0, 12)}
    assert summary.fillers_per_100_words == pytest.approx(100 * 3 / 24)
