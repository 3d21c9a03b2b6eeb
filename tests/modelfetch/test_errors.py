"""Errors: the tree matches the drawing, and every error has a sentence and a hint."""

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelfetch import errors
from modelfetch.archive import extract_archive, gunzip_file
from modelfetch.errors import ModelfetchError

ALL = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, ModelfetchError)]


def test_drawing_of_the_errors_equals_the_class_tree() -> None:
    """Names, codes and reasons in the module docstring match the classes."""
    drawn = re.findall(r"── (\w+) +(\d+) +(\w+)", errors.__doc__ or "")

    assert sorted(drawn) == sorted((k.__name__, str(k.code), k.reason) for k in ALL if k is not ModelfetchError)


def test_every_error_class_has_a_reason_of_its_own() -> None:
    """Machines tell the classes apart by their reasons."""
    assert len({kind.reason for kind in ALL}) == len(ALL)


@pytest.mark.parametrize("kind", ALL)
def test_every_failure_has_a_message_and_a_hint(kind: type[ModelfetchError]) -> None:
    """`str()` of an error returns the message without the hint."""
    error = kind("what", hint="next")

    assert (str(error), error.message, error.hint) == ("what", "what", "next")
    assert kind.retryable == (kind in (errors.TransientError, errors.ChangedError, errors.ResourceError))


def test_interrupt_passes_handlers_of_exceptions() -> None:
    """A handler of `Exception` in an SDK must not swallow a signal."""
    assert not issubclass(errors.Interrupted, Exception)
    assert errors.Interrupted(15).signum == 15


SOURCE = Path(errors.__file__).parent
OURS = {kind.__name__ for kind in ALL}
# These functions add a hint to errors of these classes that are raised below them, in their own package.
HINT_ADDERS = (extract_archive, gunzip_file)
HINTED_ABOVE = {errors.ArchiveError.__name__, errors.BudgetError.__name__, errors.UnsafeNameError.__name__}


def raise_sites() -> Iterator[tuple[Path, ast.Call]]:
    """Yield every call that creates a modelfetch error."""
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in OURS:
                yield path, node


def hinted_above(path: Path, call: ast.Call) -> bool:
    """Return whether an error raised here passes a function that adds the hint."""
    packages = {Path(inspect.getfile(adder)).parent for adder in HINT_ADDERS}
    return path.parent in packages and isinstance(call.func, ast.Name) and call.func.id in HINTED_ABOVE


def test_every_raised_error_has_a_hint() -> None:
    """Every call passes a non-empty hint."""
    sites = list(raise_sites())
    bare = [
        f"{path.name}:{call.lineno}"
        for path, call in sites
        if not hinted_above(path, call)
        and not any(
            k.arg == "hint" and not (isinstance(k.value, ast.Constant) and not k.value.value) for k in call.keywords
        )
    ]

    assert len(sites) > 150
    assert bare == []


def test_every_message_ends_like_a_sentence() -> None:
    """Messages end with a full stop, also when quoted from a log."""
    ends = [(path, call, sentence(call.args[0])) for path, call in raise_sites() if call.args]
    open_ended = [f"{path.name}:{call.lineno}" for path, call, text in ends if text and text[-1] not in ".…?"]

    assert open_ended == []


def sentence(node: ast.expr) -> str:
    """Return the end of a message as far as literal; empty otherwise."""
    if isinstance(node, ast.JoinedStr):
        node = node.values[-1]
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""
