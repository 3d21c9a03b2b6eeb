"""The receipt, the only contract between both packages: written by modelfetch, read and checked by modelserve."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import joblib
import pytest
from sklearn.dummy import DummyClassifier

from modelfetch import safe_paths
from modelfetch.volume import receipt as written
from modelserve import receipt as read
from modelserve.engine.repository import ModelSource, load_model
from modelserve.errors import WrongBytesError
from testkit.cli_runner import CliRunner
from tests.contract import previous_reader
from tests.contract.tables import README

KINDS = ["file", "directory", "archive"]


class Pulled(NamedTuple):
    """A pulled model: its path, the file inside, the receipt's path and content."""

    path: Path
    file: Path
    receipt: Path
    content: dict[str, Any]


@pytest.fixture
def pulled(modelfetch: CliRunner, tmp_path: Path) -> Callable[[str], Pulled]:
    """Return a function that pulls a model of a kind from a path."""

    def pull(kind: str) -> Pulled:
        model = tmp_path / "model"
        (model / "more").mkdir(parents=True)
        (model / "more" / "a b.txt").write_text("labels")
        joblib.dump(DummyClassifier(strategy="constant", constant="yes").fit([[0.0]], ["yes"]), model / "model.joblib")
        source, dest = {
            "file": (model / "model.joblib", "out/model.joblib"),
            "directory": (model, "out"),
            "archive": (tmp_path / "model.tar.gz", "out/"),
        }[kind]
        if kind == "archive":
            shutil.make_archive(str(model), "gztar", model)
        out = modelfetch.home / "out"
        receipt = out / ("model.joblib.modelfetch-receipt" if kind == "file" else ".modelfetch-receipt")
        modelfetch.ok("pull", source, dest)
        path = out / "model.joblib" if kind == "file" else out
        return Pulled(path, out / "model.joblib", receipt, json.loads(receipt.read_text(encoding="utf-8")))

    return pull


@pytest.mark.parametrize("kind", KINDS)
def test_a_receipt_has_the_fields_that_the_readme_shows(kind: str, pulled: Callable[[str], Pulled]) -> None:
    """Schema 1 matches field by field and type by type; an extracted model's receipt names the archive too."""
    shown = next(
        json.loads(block)
        for block in re.findall(r"```json\n(.*?)```", README.read_text("utf-8"), re.DOTALL)
        if '"schema"' in block
    )

    content = pulled(kind).content

    archive = content.pop("archive", None)
    assert {key: type(value) for key, value in content.items()} == {key: type(value) for key, value in shown.items()}
    assert list(content["files"][0]) == list(shown["files"][0])
    assert content["schema"] == shown["schema"] == 1
    assert (list(archive) if archive else None) == (["name", "size", "sha256"] if kind == "archive" else None)
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", content["digest"])
    for moment in ("started", "finished"):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", content[moment])


@pytest.mark.parametrize("kind", KINDS)
def test_modelserve_loads_what_modelfetch_published(kind: str, pulled: Callable[[str], Pulled]) -> None:
    """The app finds the receipt, checks the file, and reports the model's source."""
    published = pulled(kind)

    model = load_model(ModelSource(published.path, require_receipt=True))

    assert model.file == published.file
    assert model.receipt is not None
    assert model.receipt.path == published.receipt
    facts = (model.digest, model.version, model.source, model.receipt.tool)
    assert facts == tuple(published.content[key] for key in ("digest", "version", "source", "tool"))
    assert model.receipt.finished == datetime.fromisoformat(published.content["finished"])


@pytest.mark.parametrize("kind", KINDS)
def test_modelserve_refuses_what_was_changed_after_it_was_published(kind: str, pulled: Callable[[str], Pulled]) -> None:
    """A flipped bit, with size and time unchanged, is refused by the app."""
    published = pulled(kind)
    data = bytearray(published.file.read_bytes())
    data[len(data) // 2] ^= 1
    published.file.write_bytes(data)

    with pytest.raises(WrongBytesError, match="sha256"):
        load_model(ModelSource(published.path))


@pytest.mark.parametrize("kind", ["directory", "archive"])
def test_a_directorys_digest_is_what_a_shell_says(kind: str, pulled: Callable[[str], Pulled]) -> None:
    """The digest equals sha256 over the sorted lines of `sha256sum`: checkable without modelfetch."""
    published = pulled(kind)
    script = "find . -type f ! -name '.modelfetch*' -printf '%P\\0' | LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum"

    output = subprocess.run(
        ["bash", "-c", script], cwd=published.path, capture_output=True, text=True, check=True
    ).stdout

    assert published.content["digest"] == f"sha256:{output.split()[0]}"
    assert sorted(f["path"] for f in published.content["files"]) == ["model.joblib", "more/a b.txt"]


@pytest.mark.parametrize("kind", KINDS)
def test_published_files_bear_the_receipts_time(kind: str, pulled: Callable[[str], Pulled]) -> None:
    """The mtime of each file is `finished`, to the second: untouched files are known without reading."""
    published = pulled(kind)
    finished = int(datetime.fromisoformat(published.content["finished"]).timestamp())

    times = {(published.receipt.parent / f["path"]).stat().st_mtime_ns for f in published.content["files"]}

    assert times == {finished * 1_000_000_000}


def test_both_packages_mean_the_same_receipt() -> None:
    """Schema and name agree, although neither package imports the other."""
    assert written.SCHEMA == read.SCHEMA
    assert (safe_paths.RECEIPT_SUFFIX, safe_paths.OLD_RECEIPT_SUFFIX) == (read.SUFFIX, read.OLD_SUFFIX)


def test_both_packages_ignore_what_they_do_not_know(pulled: Callable[[str], Pulled]) -> None:
    """Unknown fields of a later version are ignored."""
    published = pulled("file")
    published.receipt.write_text(json.dumps({**published.content, "signature": {"by": "somebody"}}), encoding="utf-8")

    digests = (written.read_receipt(published.receipt).digest, read.read_receipt(published.receipt).digest)
    assert digests == (published.content["digest"], published.content["digest"])


def test_both_packages_refuse_a_later_schema_without_files(pulled: Callable[[str], Pulled]) -> None:
    """A later schema is read for its files; without path, size and sha256 nothing is known."""
    published = pulled("file")
    published.receipt.write_text(json.dumps({"schema": 2, "files": [{"path": "model.joblib"}]}), encoding="utf-8")

    for read_receipt in (written.read_receipt, read.read_receipt):
        with pytest.raises(Exception, match=r"size"):
            read_receipt(published.receipt)


@pytest.mark.parametrize("kind", KINDS)
def test_previous_app_finds_no_receipt_of_the_new_name(kind: str, pulled: Callable[[str], Pulled]) -> None:
    """Hence the app's image is rolled first: an app that requires a receipt would refuse the new init image's model."""
    published = pulled(kind)

    assert previous_reader.find_entry(published.file) is None
    assert read.find_receipt(published.file) is not None


@pytest.mark.parametrize("kind", KINDS)
def test_app_reads_the_receipt_of_the_previous_init_image(kind: str, pulled: Callable[[str], Pulled]) -> None:
    """The content is the same, under the old name; the new name wins where both stand."""
    published = pulled(kind)
    old = published.receipt.with_name(published.receipt.name.replace(read.SUFFIX, read.OLD_SUFFIX))
    published.receipt.rename(old)

    entry, found = previous_reader.find_entry(published.file), read.find_receipt(published.file)

    assert entry is not None
    assert found is not None
    assert (found[0].path, found[1].sha256) == (old, entry["sha256"])
    published.receipt.write_text(json.dumps(published.content | {"version": "new"}))
    both = read.find_receipt(published.file)
    assert both is not None
    assert (both[0].path, both[0].version) == (published.receipt, "new")
