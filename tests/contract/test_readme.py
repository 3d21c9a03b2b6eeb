"""Contract between the code and the README and other pages."""

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from modelfetch.cli import app as cli
from modelfetch.cli.settings import Settings, list_variables
from modelserve.engine.inference import EngineLimits, InferenceEngine
from modelserve.engine.repository import ModelSource
from modelserve.http.app import create_app
from modelserve.http.routes import RequestLimits
from modelserve.process import settings as app_settings
from testkit.cli_runner import CliRunner
from tests.contract.tables import README, ROOT, readme_tables, table_pattern

OTHER_PAGES = ("CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")
PAGES = [README, *(ROOT / name for name in OTHER_PAGES), *sorted(ROOT.glob("docs/*.md"))]
FENCED_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
INLINE_CODE = re.compile(r"`([^`\n]+)`")
COMMANDS: dict[str, Any] = vars(typer.main.get_command(cli.app))["commands"]
NO_SETTINGS = (
    "MODELFETCH_",
    "MODELSERVE_",
    "MODELFETCH_TEST_S3_ENDPOINT",
    "MODELFETCH_TEST_GCS_ENDPOINT",
    "MODELFETCH_TEST_SERVERS",
)


def fenced_blocks(page: Path, language: str) -> list[str]:
    """Return the fenced blocks of a language."""
    return [text for kind, text in FENCED_BLOCK.findall(page.read_text(encoding="utf-8")) if kind == language]


def shown_commands(page: Path) -> Iterator[list[str]]:
    """Yield a page's `modelfetch` commands as words: lines of shell blocks, and inline code with arguments."""
    shown = [line for block in fenced_blocks(page, "sh") for line in block.splitlines()]
    shown += [code for code in INLINE_CODE.findall(page.read_text(encoding="utf-8")) if len(code.split()) > 2]
    for line in shown:
        words = shlex.split(line, comments=True) if line.startswith("modelfetch ") else []
        if words:
            yield words[1:]


def command_flags(command: Any) -> set[str]:
    """Return all flags of a command."""
    return {flag for parameter in command.params for flag in (*parameter.opts, *parameter.secondary_opts)}


@pytest.mark.parametrize("name", readme_tables())
def test_tables_of_the_readme_are_what_the_code_says(name: str) -> None:
    """The README's tables equal the generated tables; `.venv/bin/python tests/contract/tables.py` rewrites them."""
    found = table_pattern(name).search(README.read_text(encoding="utf-8"))

    assert found, f"the README has no <!-- {name} --> and <!-- end of {name} -->"
    assert found[0] == readme_tables()[name]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_that_is_shown_parses(page: Path) -> None:
    """Each `modelfetch` command in a page exists and accepts its flags and arguments."""
    for name, *words in shown_commands(page):
        COMMANDS[name].make_context(name, list(words))


def test_the_readme_shows_commands_at_all() -> None:
    """The README has commands for the test above, and a wrong flag is refused."""
    shown = list(shown_commands(README))

    assert {"pull", "push", "inspect", "verify"} <= {words[0] for words in shown}
    with pytest.raises(typer.TyperException):
        COMMANDS["pull"].make_context("pull", ["--no-such-flag", "a", "b"])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_subcommand_that_is_named_exists(page: Path) -> None:
    """`modelfetch word` in code names a command of `modelfetch --help`."""
    named = set(re.findall(r"(?:^|`)modelfetch ([a-z]+)", page.read_text(encoding="utf-8"), re.MULTILINE))

    assert named <= set(COMMANDS)


def test_help_and_readme_list_the_same_commands(modelfetch: CliRunner) -> None:
    """The commands of `modelfetch --help` are those of the program and the README."""
    listed = re.findall(r"^  ([a-z]+)  ", modelfetch.ok("--help").stdout.partition("Commands:")[2], re.MULTILINE)

    assert set(listed) == set(COMMANDS)
    assert [name for name in listed if f"modelfetch {name}" not in README.read_text(encoding="utf-8")] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_flag_that_is_named_exists(page: Path) -> None:
    """Every `--flag` in code is a flag of `modelfetch`."""
    text = page.read_text(encoding="utf-8")
    code = " ".join([*INLINE_CODE.findall(text), *fenced_blocks(page, "sh")])
    known = set.union(*(command_flags(command) for command in COMMANDS.values()), {"--help", "--port"})

    assert set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", code)) - known == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_variable_that_is_named_exists(page: Path) -> None:
    """Every `MODELFETCH_*` or `MODELSERVE_*` in a page is read by either package."""
    fetch_names = {name for field in Settings.model_fields for name in list_variables(field)}
    known = fetch_names | set(map(app_settings.get_variable, app_settings.Settings.model_fields)) | set(NO_SETTINGS)

    assert set(re.findall(r"MODEL(?:FETCH|SERVE)_[A-Z0-9_]*", page.read_text(encoding="utf-8"))) - known == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_lead_somewhere(page: Path) -> None:
    """Every link and picture without a URL scheme is a file of the repository."""
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    local = [link.partition("#")[0] for link in links if "://" not in link]

    assert [link for link in local if not (page.parent / link).exists()] == []


def test_paths_that_code_and_pages_name_exist() -> None:
    """Every page of `docs/` named in code, and every path in code font, exists."""
    named = {path for page in PAGES for path in INLINE_CODE.findall(page.read_text(encoding="utf-8"))}
    paths = {path for path in named if re.fullmatch(r"(demo|docs|k8s|scripts|src|tests)/[\w./-]*", path)}
    for source in ROOT.glob("src/**/*.py"):
        paths |= set(re.findall(r"(?<![\w/])docs/[\w./-]+\w", source.read_text(encoding="utf-8")))

    assert len(paths) > 5
    assert sorted(path for path in paths if not (ROOT / path).exists()) == []


def test_make_targets_that_are_named_exist() -> None:
    """Every `make word` in code is a target of the Makefile."""
    targets = set(re.findall(r"^([a-z0-9]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = {n for page in PAGES for n in re.findall(r"(?:^|`)make ([a-z0-9]+)", page.read_text("utf-8"), re.MULTILINE)}

    assert {"demo", "test", "e2e"} <= named <= targets


def test_the_house_is_drawn_as_it_stands() -> None:
    """The architecture page has every room of both packages, and no other."""
    rows = re.findall(r"^\| (`.+?`) \|", (ROOT / "docs/architecture.md").read_text(encoding="utf-8"), re.MULTILINE)
    drawn = {name.strip("/") for row in rows for name in INLINE_CODE.findall(row)}
    rooms = {
        path.name
        for package in ("modelfetch", "modelserve")
        for path in (ROOT / "src" / package).iterdir()
        if path.suffix == ".py" or (path / "__init__.py").exists()
    }

    assert drawn == rooms - {"__init__.py", "__main__.py"}


def test_the_manifests_that_are_shown_are_those_of_k8s() -> None:
    """The README's ConfigMap and pod are excerpts of `k8s/base`, with variables that the code reads."""
    config, pod, kserve = (yaml.safe_load(block) for block in fenced_blocks(README, "yaml"))
    base = yaml.safe_load((ROOT / "k8s/base/deployment.yaml").read_text(encoding="utf-8"))["spec"]["template"]["spec"]
    known = {name for field in Settings.model_fields for name in list_variables(field)}

    assert set(config["data"]) - known == {"S3_BUCKET", "S3_MODEL_PATH"}
    for kind in ("initContainers", "containers"):
        (shown,), (real,) = pod[kind], base[kind]
        same = [key for key in shown if key not in ("image", "envFrom")]
        assert {key: shown[key] for key in same} == {key: real[key] for key in same}
        assert shown.get("envFrom", []) == real.get("envFrom", [])[:1]
    assert pod["volumes"][0]["name"] == base["volumes"][0]["name"]
    assert kserve["spec"]["container"]["name"] == "storage-initializer"


def test_the_failure_that_is_shown_is_what_a_failure_says(modelfetch: CliRunner) -> None:
    """The README's line of JSON has the keys, code and reason of a real failure."""
    shown = json.loads(fenced_blocks(README, "json")[0])

    run = modelfetch("pull", "file:///nowhere/model.joblib", "out")

    assert list(run.error) == list(shown)
    assert list(json.loads(run.termination)) == list(shown)
    assert (run.code, run.error["code"], run.error["reason"]) == (66, shown["code"], shown["reason"])


def test_the_routes_that_are_shown_are_served() -> None:
    """Every `GET /path` and `POST /path` of the README is a route of modelserve."""
    engine = InferenceEngine(ModelSource(Path("model.joblib")), EngineLimits(max_requests=1, threads=1))
    app = create_app(engine, RequestLimits(max_body=1, max_rows=1, body_timeout=1), port=8000)
    served = {(method, path) for path, ways in app.openapi()["paths"].items() for method in ways}
    served |= {("get", "/"), ("get", app.docs_url)}

    shown = re.findall(r"`(GET|POST) (/[^`]*)`", README.read_text(encoding="utf-8"))

    assert {(method.lower(), path) for method, path in shown} == served


@pytest.mark.parametrize("picture", sorted(ROOT.glob("docs/pictures/*.svg")), ids=lambda picture: picture.name)
def test_pictures_load_nothing_from_elsewhere(picture: Path) -> None:
    """Every picture is small and looks the same offline."""
    text = picture.read_text(encoding="utf-8")

    assert len(text) < 60_000
    assert set(re.findall(r"https?://[^/:]+", text)) <= {
        "http://www.w3.org",
        "http://127.0.0.1",
    }  # its schema; our store
    assert re.findall(r"(?:href|src|url)\s*[=(]\s*+['\"]?+(?!#)", text) == []
    assert "@font-face" not in text
