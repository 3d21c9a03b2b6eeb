"""Count names and prose: words per function name, pronouns and fillers per 100 docstring words; print the worst ten.

`python scripts/prose.py [PATH...]` reads Python files below the paths (default: src/modelfetch and src/modelserve). A
guide for people, not a gate in CI: at least 1.5 words per function name, at most 4 fillers per 100 words.
"""
# ruff: noqa: INP001, T201  a script: prints

import ast
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

FILLERS = {
    "it", "its", "itself", "that", "those", "this", "these", "what", "whatever", "which", "who", "whoever", "whose",
    "one", "ones", "there", "such", "so", "them", "they",
}  # fmt: skip
FEWEST_WORDS = 5  # of a docstring
WORST = 10
_WORD = re.compile(r"[A-Za-z][A-Za-z'-]*")
_CODE = re.compile(r"`[^`]*`|https?://\S+|^\s*>>>.*$", re.MULTILINE)
_HEADINGS = re.compile(r"^\s*(Args|Returns|Raises|Yields|Attributes):\s*$", re.MULTILINE)
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


class Docstring(NamedTuple):
    """Place and words of a docstring, without code, links and headings."""

    where: str
    words: list[str]

    @property
    def fillers(self) -> int:
        """Count the pronouns and fillers."""
        return sum(word.lower() in FILLERS for word in self.words)


class Summary(NamedTuple):
    """The counts of one tree of files."""

    functions: dict[str, int]  # words of each function's name, by place
    docstrings: list[Docstring]

    @property
    def words_per_name(self) -> float:
        """Return the mean number of words of a function's name."""
        return sum(self.functions.values()) / max(len(self.functions), 1)

    @property
    def fillers_per_100_words(self) -> float:
        """Return the pronouns and fillers per 100 docstring words."""
        words = sum(len(doc.words) for doc in self.docstrings)
        return 100 * sum(doc.fillers for doc in self.docstrings) / max(words, 1)


def summarise(paths: Iterable[Path]) -> Summary:
    """Count the names and docstrings of Python files."""
    functions: dict[str, int] = {}
    docstrings: list[Docstring] = []
    for path in paths:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        functions |= dict(count_names(path, tree))
        docstrings += collect_docstrings(path, tree)
    return Summary(functions, docstrings)


def count_names(path: Path, tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Yield each function's place and the number of words of its name; special methods are Python's."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and not node.name.startswith("__"):
            yield f"{path}:{node.lineno} {node.name}", len([word for word in node.name.split("_") if word])


def collect_docstrings(path: Path, tree: ast.AST) -> Iterator[Docstring]:
    """Yield the docstrings of a module, its classes and functions."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, *_DEFINITIONS)) and (text := ast.get_docstring(node)):
            name = node.name if isinstance(node, _DEFINITIONS) else "module"
            plain = _HEADINGS.sub("", _CODE.sub(" CODE ", text))
            yield Docstring(f"{path}:{getattr(node, 'lineno', 1)} {name}", _WORD.findall(plain))


def main() -> None:
    """Print the counts of each path, and the ten worst docstrings of all."""
    roots = [Path(arg) for arg in sys.argv[1:]] or [Path("src/modelfetch"), Path("src/modelserve")]
    worst: list[Docstring] = []
    short: list[Docstring] = []
    for root in roots:
        summary = summarise(sorted(root.rglob("*.py")) if root.is_dir() else [root])
        print(
            f"{root}: {summary.words_per_name:.2f} words per function name ({len(summary.functions)} functions),"
            f" {summary.fillers_per_100_words:.1f} fillers per 100 docstring words"
        )
        worst += summary.docstrings
        short += [doc for doc in summary.docstrings if len(doc.words) < FEWEST_WORDS]
    print("\nworst docstrings (fillers / words):")
    for doc in sorted(worst, key=lambda doc: doc.fillers**2 / max(len(doc.words), 1), reverse=True)[:WORST]:
        print(f"  {doc.fillers:3} / {len(doc.words):3}  {doc.where}")
    print(f"\ndocstrings of fewer than {FEWEST_WORDS} words: {len(short)}")
    for doc in short[:WORST]:
        print(f"  {doc.where}: {' '.join(doc.words)}")


if __name__ == "__main__":
    main()
