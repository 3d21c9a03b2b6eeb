"""A source registered by a test: redirects, a version of the whole set, pins and checks, without a line changed."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelfetch import sources
from modelfetch.cli import app as cli
from modelfetch.errors import UsageError
from modelfetch.inspection import inspect_source
from modelfetch.progress import SilentProgress
from modelfetch.pull.options import PullOptions
from modelfetch.pull.pull import pull, resolve
from modelfetch.sources import SourceOptions, open_source, parse_uri
from modelfetch.transfer.adaptive_pool import TransferLimits
from modelfetch.transfer.part_file import PART_SIZE
from modelfetch.volume.receipt import Receipt
from testkit.file_tree import random_bytes, read_files
from tests.toy_source.hub import TOKEN, ToyHub, run_toy_hub
from tests.toy_source.source import SPEC

pytestmark = pytest.mark.server

FIRST, SECOND = "c0ffee", "decade"
MODEL = {"config.json": b"{}", "weights/model.bin": random_bytes(70_000, 1), "README.md": b"# A model"}


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> Iterator[ToyHub]:
    """Register the source, and run its hub with one commit."""
    monkeypatch.setattr(sources, "_SPECS", dict(sources._SPECS))
    monkeypatch.setenv("TOY_TOKEN", TOKEN)
    sources.register(SPEC)
    with run_toy_hub() as hub:
        hub.commits[FIRST] = MODEL
        yield hub


def toy_options() -> SourceOptions:
    """Return the source's options, as the command line reads them."""
    return SPEC.options_from_env({"TOY_TOKEN": TOKEN}, SourceOptions())


def pull_model(address: str, dest: Path, options: PullOptions | None = None) -> Receipt:
    """Pull over one connection, so that the number of requests is certain."""
    options = options or PullOptions(retries=1, limits=TransferLimits(connections=1))
    return pull(parse_uri(address), str(dest), toy_options(), options, SilentProgress())


def test_pulled_directory_has_the_sets_version_and_checks_per_file(toy: ToyHub, tmp_path: Path) -> None:
    """The receipt names the commit; a file without a checksum in the listing hides no check of the others."""
    toy.unchecked = frozenset({"README.md"})

    receipt = pull_model(toy.address, tmp_path / "m")

    content = read_files(tmp_path / "m")
    assert {path: content[path] for path in MODEL} == MODEL
    assert (receipt.source, receipt.version, receipt.checks) == (toy.address, FIRST, ("size",))
    assert {file.path: file.checks for file in receipt.files} == {
        "README.md": None,
        "config.json": ("size", "sha256"),
        "weights/model.bin": ("size", "sha256"),
    }
    written = json.loads((tmp_path / "m/.modelfetch-receipt").read_text())
    assert [file.get("checks") for file in written["files"]] == [None, ["size", "sha256"], ["size", "sha256"]]


def test_ranges_of_a_redirected_object_go_straight_to_the_cdn(toy: ToyHub, tmp_path: Path) -> None:
    """The hub redirects once per object; the CDN, which refuses the hub's token, serves every part."""
    toy.commits[SECOND] = {**MODEL, "weights/model.bin": random_bytes(2 * PART_SIZE + 5, 1)}

    pull_model(toy.address, tmp_path / "m")

    assert toy.count("model.bin") == (1, 3)
    assert toy.count("config.json") == (1, 1)


def test_published_commit_is_up_to_date_after_one_request(toy: ToyHub, tmp_path: Path) -> None:
    """A second pull of the same commit lists the model and ends."""
    first = pull_model(toy.address, tmp_path / "m")
    toy.hub.requests.clear()

    assert pull_model(toy.address, tmp_path / "m") == first
    assert len(toy.hub.requests) == 1


def test_pinned_directory_stays_at_its_commit(toy: ToyHub, tmp_path: Path) -> None:
    """The pinned address, as `inspect` shows it, pulls the old commit although a newer one exists."""
    plan = inspect_source(parse_uri(toy.address), toy_options(), PullOptions()).plan
    toy.commits[SECOND] = {"config.json": b"[]"}

    assert plan.pinned_uri == f"{toy.address}@{FIRST}"
    assert pull_model(plan.pinned_uri, tmp_path / "old").version == FIRST
    assert pull_model(toy.address, tmp_path / "new").version == SECOND
    assert read_files(tmp_path / "new")["config.json"] == b"[]"


def test_resolve_learns_the_version_without_a_byte_of_content(toy: ToyHub) -> None:
    """A poller asks for the version alone."""
    source = open_source(parse_uri(toy.address), toy_options())

    assert resolve(source, PullOptions()).version == FIRST
    assert toy.cdn.requests == []


def test_command_line_pulls_from_a_registered_source(
    toy: ToyHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The scheme's parser, options and source are used; the token comes from the environment."""
    code = cli.run(["pull", toy.address, str(tmp_path / "m"), "--output", "json"])

    assert code == 0, capsys.readouterr().err
    assert json.loads(capsys.readouterr().out)["version"] == FIRST


def test_unknown_commit_and_malformed_address_are_explained(toy: ToyHub, capsys: pytest.CaptureFixture[str]) -> None:
    """Errors of a registered source get the exit codes of the built-in ones."""
    assert cli.run(["inspect", f"{toy.address}@abad1dea"]) == 66
    with pytest.raises(UsageError, match="no toy address"):
        parse_uri("toy://nowhere")
    assert "Not found" in capsys.readouterr().err
