"""Every command in CONTRIBUTING.md works: cheap commands are run, of others target, program and script exist."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.contract.tables import ROOT

PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
BIN = Path(sys.executable).parent
# Variables by which an outer make, pytest or coverage would reach into the commands.
OUTER = ("MAKE", "MFLAGS", "PYTEST_", "COV_", "COVERAGE_")
FULL_LINES = re.compile(r"^```sh\n(.*?)^```$", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"`((?:make|\.venv/bin/\S+|\.ci/run)(?: [^`\n]+)?)`")


def find_commands() -> list[str]:
    """Return the commands of the page's shell blocks and code spans, each once."""
    lines = [line for block in FULL_LINES.findall(PAGE) for line in block.splitlines()]
    without_comments = [shlex.join(shlex.split(line, comments=True)) for line in lines]
    spans = [shlex.join(shlex.split(span)) for span in INLINE.findall(PAGE) if span != "make"]
    return sorted({*filter(None, without_comments), *spans})


def is_cheap(command: str) -> bool:
    """Tell whether a test can afford to run this command: help, counts, and pytest if it only collects."""
    words = shlex.split(command)
    return words[:2] in (["make", "help"], ["make", "t"]) or words[0].endswith("/pytest") or "scripts/prose.py" in words


def run_command(command: str) -> "subprocess.CompletedProcess[str]":
    """Run a command at the root of the repository; pytest collects only."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(OUTER) and name != "T"}
    env["PYTEST_ADDOPTS"] = "--collect-only -q -p no:cacheprovider"
    words = [word.replace(".venv/bin", str(BIN)) for word in shlex.split(command)]
    return subprocess.run(words, cwd=ROOT, env=env, capture_output=True, text=True, timeout=120, check=False)


def test_contributing_names_the_main_commands() -> None:
    """The search finds blocks and spans; otherwise the tests below would check nothing."""
    found = find_commands()

    assert {"make help", "make quick", "make test", "make t T=test_staging", ".ci/run"} <= set(found)
    assert sum(map(is_cheap, found)) >= 5


@pytest.mark.process
@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize("command", [*filter(is_cheap, find_commands())])
def test_cheap_command_of_contributing_succeeds(command: str) -> None:
    """Exit code 0; pytest's 5 for an empty selection fails."""
    done = run_command(command)

    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


@pytest.mark.parametrize("command", find_commands())
def test_command_of_contributing_exists(command: str) -> None:
    """The make target, the program of the environment, and the script are there."""
    program, *arguments = shlex.split(command)
    if program == "make":
        targets = re.findall(r"^([a-z0-9]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        assert arguments[0] in targets
        return
    path = BIN / Path(program).name if program.startswith(".venv/bin/") else ROOT / program
    assert os.access(path, os.X_OK)
    for argument in arguments:
        assert not argument.endswith(".py") or (ROOT / argument).is_file()


def test_directories_of_contributing_exist() -> None:
    """A code span that ends with a slash is a directory of the repository, or of src/modelfetch."""
    named = re.findall(r"`([a-z0-9_]+(?:/[a-z0-9_]+)*/)`", PAGE)

    assert "tests/faults/" in named
    assert [path for path in named if not ((ROOT / path).is_dir() or (ROOT / "src/modelfetch" / path).is_dir())] == []
