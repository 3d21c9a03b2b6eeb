"""Contract of the pages about the code: the picture of the rooms is current, and named files exist."""

import re
from itertools import product
from pathlib import Path

import pytest

from scripts.draw_rooms import PICTURE, draw_picture, read_imports, read_layers, reduce_imports
from scripts.mutants import MUTANTS, Mutant
from tests.contract.tables import ROOT

PAGES = [ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/*.md"))]
# A path may be written below one of these.
BASES = ("", "src", "src/modelfetch", "src/modelserve", "src/modelserve/runtimes", "tests")
PATH = re.compile(r"[\w.-]+(?:/[\w.-]+)*\.py|(?:[\w.-]+/)+")
NO_REPOSITORY_PATHS = {"build/", ".modelfetch/"}  # written by `make faults`, and by a pull


def named_paths(page: Path) -> set[str]:
    """Return the Python files and folders in a page's code spans; `file.py::test` names the file."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    spans = {span.partition("::")[0] for span in re.findall(r"`([^`\n]+)`", text)}
    return {span for span in spans if PATH.fullmatch(span)} - NO_REPOSITORY_PATHS


def path_exists(name: str) -> bool:
    """Tell whether a base has the path, or, for a bare file name of a test, any folder of tests."""
    if any((ROOT / base / name).exists() for base in BASES):
        return True
    return name.startswith("test_") and any(ROOT.glob(f"tests/**/{name}"))


def mutant_row(mutant: Mutant) -> str:
    """Return the row of a mutant in docs/reliability.md; a test without a name is a whole file."""
    names = [test or file.rpartition("/")[2] for file, _, test in (t.partition("::") for t in mutant.tests)]
    tests = ", ".join(f"`{name}`" for name in names)
    return f"| {mutant.name} | `{mutant.function}` in `{mutant.module}` | {tests} |"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_and_folders_that_a_page_names_exist(page: Path) -> None:
    """Each `path.py` and `folder/` in a code span is in the repository, below a base of the list above."""
    assert [name for name in sorted(named_paths(page)) if not path_exists(name)] == []


def test_missing_files_and_folders_are_noticed(tmp_path: Path) -> None:
    """The search finds paths; otherwise the test above would check nothing."""
    page = tmp_path / "page.md"
    page.write_text("See `gone.py`, `gone/`, `pull/pull.py`, `word`, `test_gone.py::test_it`, `build/`.")

    assert named_paths(page) == {"gone.py", "gone/", "pull/pull.py", "test_gone.py"}
    assert [name for name in sorted(named_paths(page)) if path_exists(name)] == ["pull/pull.py"]


def test_picture_of_the_rooms_is_current() -> None:
    """A picture drawn anew equals the committed picture."""
    assert PICTURE.read_text(encoding="utf-8") == draw_picture(), (
        "the imports have changed: run `.venv/bin/python scripts/draw_rooms.py` and look at docs/pictures/rooms.svg"
    )


@pytest.mark.parametrize("package", ["modelfetch", "modelserve"])
def test_drawn_arrows_lead_wherever_imports_lead(package: str) -> None:
    """Arrows left out of the picture are paths of drawn arrows, and no drawn arrow is invented."""
    imports = read_imports(package, [room for layer in read_layers(package) for room in layer])
    arrows = set(reduce_imports(imports))
    reached = set(arrows)
    for middle, start, end in product(imports, repeat=3):
        if {(start, middle), (middle, end)} <= reached:
            reached.add((start, end))

    assert arrows <= {(room, name) for room, names in imports.items() for name in names} <= reached


def test_every_picture_is_shown() -> None:
    """A picture that no page links is stale."""
    shown = "".join(page.read_text(encoding="utf-8") for page in [ROOT / "README.md", *PAGES])

    assert [path.name for path in ROOT.glob("docs/pictures/*.svg") if f"pictures/{path.name}" not in shown] == []


def test_table_of_mutants_is_current() -> None:
    """docs/reliability.md has one row per mutant: safeguard, function and module, tests."""
    page = (ROOT / "docs/reliability.md").read_text(encoding="utf-8")
    table = page.partition("| switched off | in | noticed by |\n|---|---|---|\n")[2].partition("\n\n")[0]

    assert table.splitlines() == [mutant_row(mutant) for mutant in MUTANTS]
