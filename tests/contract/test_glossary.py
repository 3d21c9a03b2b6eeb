"""Contract of the glossary: each word once, in order, with a short meaning and an existing module."""

import re
from typing import NamedTuple

from tests.contract.tables import ROOT

GLOSSARY = ROOT / "docs/glossary.md"
MAX_WORDS = 20  # of a meaning
_LINE = re.compile(r"- \*\*(?P<word>[^*]+)\*\* — (?P<meaning>.+\.) `(?P<module>[\w/]+\.py)`")


class Term(NamedTuple):
    """A line of the glossary."""

    word: str
    meaning: str
    module: str


def read_terms() -> list[Term]:
    """Return every term of the glossary; a list line in another form fails."""
    lines = [line for line in GLOSSARY.read_text(encoding="utf-8").splitlines() if line.startswith("- ")]
    matches = [_LINE.fullmatch(line) for line in lines]

    assert [line for line, match in zip(lines, matches, strict=True) if match is None] == []
    return [Term(**match.groupdict()) for match in matches if match]


def test_glossary_lists_each_word_once_in_alphabetical_order() -> None:
    """A word listed twice would have two meanings; order ignores case."""
    words = [term.word.lower() for term in read_terms()]

    assert len(words) > 50
    assert words == sorted(set(words))


def test_glossary_gives_each_word_a_meaning_of_its_own() -> None:
    """No meaning is longer than twenty words, and no two words share a meaning."""
    meanings = [term.meaning for term in read_terms()]

    assert [meaning for meaning in meanings if len(meaning.split()) > MAX_WORDS] == []
    assert len(set(meanings)) == len(meanings)


def test_glossary_names_modules_that_exist() -> None:
    """A module is a file below `src/`, or below `src/modelfetch/` without the package's name."""
    roots = (ROOT / "src", ROOT / "src/modelfetch")
    modules = {term.module for term in read_terms()}

    assert [module for module in sorted(modules) if not any((root / module).is_file() for root in roots)] == []
