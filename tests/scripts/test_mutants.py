import ast
import shutil
from pathlib import Path

import pytest

from scripts.mutants import MUTANTS, ROOT, Mutant
from scripts.mutation import Decide, DropCall, MoveBefore, Mutation, MutationError, ReplaceBody, mutate_function

SOURCE = """
class Store:
    def put(self, size):
        if size > self.limit:
            raise ValueError
        if size < 0:
            raise IndexError
        if not self.open:
            raise OSError
        self.flush()
        self.write(size)
"""


NEGATIVE = "if size < 0: raise IndexError"
FLUSH = "self.flush()"


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_each_mutant_changes_the_present_source(mutant: Mutant, tmp_path: Path) -> None:
    """The function exists, the mutation has its place, and the result is valid Python."""
    original = ROOT / "src/modelfetch" / mutant.module
    copy = tmp_path / mutant.module
    copy.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(original, copy)

    mutant.mutate_source(tmp_path)

    mutated = ast.parse(copy.read_text())
    assert ast.dump(mutated) != ast.dump(ast.parse(original.read_text()))


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_each_test_of_a_mutant_exists(mutant: Mutant) -> None:
    """Every named file is present and defines the named test."""
    for test in mutant.tests:
        file, _, name = test.partition("::")
        text = (ROOT / "tests" / file).read_text()
        assert f"def {name.partition('[')[0]}(" in text or not name, test


@pytest.mark.parametrize(
    ("mutation", "expected"),
    [
        (ReplaceBody("return 0"), "return 0"),
        (
            DropCall("flush"),
            f"if size > self.limit: raise ValueError\n{NEGATIVE}\nif not self.open: raise OSError\nNone",
        ),
        (
            Decide("limit", value=False),
            f"if False: raise ValueError\n{NEGATIVE}\nif not self.open: raise OSError\n{FLUSH}",
        ),
        (
            Decide("open", value=False),
            f"if size > self.limit: raise ValueError\n{NEGATIVE}\nif False: raise OSError\n{FLUSH}",
        ),
    ],
)
def test_mutations_change_only_their_place(mutation: Mutation, expected: str) -> None:
    """Body, call, comparison and condition are replaced; the rest of the function stays."""
    body = "".join(f"        {line}\n" for line in expected.splitlines())
    rest = "" if isinstance(mutation, ReplaceBody) else "        self.write(size)\n"

    mutated = mutate_function(SOURCE, "Store.put", mutation)

    assert mutated.strip() == ast.unparse(ast.parse(f"class Store:\n    def put(self, size):\n{body}{rest}"))


def test_a_statement_is_moved_before_another() -> None:
    """The call that came second comes first."""
    mutated = mutate_function(SOURCE, "Store.put", MoveBefore("write", "flush"))

    assert mutated.index("self.write(size)") < mutated.index("self.flush()")


@pytest.mark.parametrize(
    ("function", "mutation", "message"),
    [
        ("Store.get", ReplaceBody("pass"), "no function Store.get: it was renamed, moved or removed"),
        ("put", ReplaceBody("pass"), "no function put"),
        ("Store.put", DropCall("sync"), "put has 0 times a call of sync; expected once"),
        ("Store.put", Decide("mode", value=True), "put has 0 times a condition that reads mode"),
        ("Store.put", Decide("size", value=True), "put has 2 times a condition that reads size"),
        ("Store.put", MoveBefore("write", "sync"), "put has 0 times a block that calls sync and write"),
    ],
)
def test_a_mutation_without_a_place_is_refused(function: str, mutation: Mutation, message: str) -> None:
    """The message names the function and what it lacks."""
    with pytest.raises(MutationError, match=message):
        mutate_function(SOURCE, function, mutation)


def test_a_mutant_whose_module_is_gone_says_where_to_look(tmp_path: Path) -> None:
    """The message names the mutant, the file and the script to correct."""
    mutant = Mutant("lock", "gone.py", "lock", ReplaceBody("pass"), ())

    with pytest.raises(MutationError, match=r"mutant 'lock': src/modelfetch/gone.py: .*Correct scripts/mutants.py"):
        mutant.mutate_source(tmp_path)
