"""Manifests are written as documented, read strictly, and compared path by path."""

import json
from typing import Any

import pytest

from modelfetch import __version__
from modelfetch.errors import WrongBytesError
from modelfetch.provenance import manifest
from modelfetch.provenance.manifest import UNDER_WAY, Manifest, parse_manifest
from modelfetch.volume.receipt import FileEntry
from testkit.file_tree import directory_digest, manifest_json, sha256_hex

FILES = {"config.json": b"{}", "w/1.bin": b"weights"}
ENTRIES = tuple(FileEntry(name, len(data), sha256_hex(data)) for name, data in FILES.items())
GOOD: dict[str, Any] = json.loads(manifest_json(FILES))


def changed(**fields: object) -> bytes:
    """A good manifest with these fields in place of its own."""
    return json.dumps({**GOOD, **fields}).encode()


def with_file(**fields: object) -> bytes:
    """A good manifest of a single file, with these fields of it changed; its digest is right."""
    one = json.loads(manifest_json({"m": b"x"}, directory=False))
    one["files"][0] |= fields
    one["digest"] = f"sha256:{one['files'][0]['sha256']}"
    return json.dumps(one).encode()


def without(name: str) -> bytes:
    """A good manifest that lacks a field."""
    return json.dumps({key: value for key, value in GOOD.items() if key != name}).encode()


def test_a_manifest_says_what_was_pushed() -> None:
    """Schema 1, as the documentation has it."""
    text = Manifest(ENTRIES).to_json(directory=True)
    said = json.loads(text)

    assert (text.count("\n"), text[-1]) == (1, "\n")
    assert said.pop("created")
    assert said == {
        "schema": 1,
        "tool": f"modelfetch/{__version__}",
        "complete": True,
        "digest": directory_digest(FILES),
        "files": [{"path": f.path, "size": f.size, "sha256": f.sha256} for f in ENTRIES],
    }


def test_a_single_object_has_its_version_and_its_own_sha256() -> None:
    """A pull that is pinned to a version can tell that this is of another one."""
    said = json.loads(Manifest(ENTRIES[:1], version="v7").to_json(directory=False))

    assert (said["version"], said["digest"]) == ("v7", f"sha256:{ENTRIES[0].sha256}")


def test_a_manifest_is_read_as_it_was_written() -> None:
    """Of a directory, of a single object, and of a push that is under way."""
    whole, single = Manifest(ENTRIES), Manifest(ENTRIES[1:], version="v7")

    assert parse_manifest(whole.to_json(directory=True).encode(), "m", directory=True) == whole
    assert parse_manifest(single.to_json(directory=False).encode(), "m", directory=False) == single
    assert parse_manifest(UNDER_WAY.to_json(directory=True).encode(), "m", directory=True) == UNDER_WAY


def test_fields_of_later_versions_are_no_obstacle() -> None:
    """What the schema's number does not rule out may be added to it."""
    assert parse_manifest(changed(licence="MIT"), "m", directory=True).files == ENTRIES


HOSTILE: dict[str, bytes] = {
    "nothing": b"",
    "no JSON": b"<html>502</html>",
    "cut short": manifest_json(FILES)[:-10],
    "more after its end": manifest_json(FILES) + b"{}",
    "not UTF-8": b'{"schema": "\xff"}',
    "UTF-16": manifest_json(FILES).decode().encode("utf-16"),
    "too deep": b"[" * 100_000,
    "deep inside": b'{"schema": 1, "files": ' + b"[" * 100_000,
    "a number of 10,000 digits": b'{"schema": 1' + b"0" * 10_000 + b"}",
    "a list": b"[]",
    "null": b"null",
    "another schema": changed(schema=2),
    "a schema that is text": changed(schema="1"),
    "a schema that is true": changed(schema=True),
    "a schema that is a tree": changed(schema={"a": [1]}),
    **{f"no {name}": without(name) for name in GOOD},
    "complete is text": changed(complete="true"),
    "complete is 1": changed(complete=1),
    "a version that is a number": changed(version=1),
    "files is an object": changed(files={"a": 1}),
    "no files": changed(files=[]),
    "a file that is text": changed(files=["a"]),
    "a file that is null": changed(files=[None]),
    "a file without a size": changed(files=[{"path": "a", "sha256": "0" * 64}]),
    "a digest of other files": changed(digest=directory_digest({"a": b""})),
    "a digest that is null": changed(digest=None),
    "a file twice": changed(files=GOOD["files"] + GOOD["files"][:1]),
    "a file and its directory": manifest_json({"a": b"1", "a/b": b"2"}),
    "a path out of it": manifest_json({"../a": b"1"}),
    "an absolute path": manifest_json({"/etc/passwd": b"1"}),
    "a path with a line break": manifest_json({"a\nb": b"1"}),
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
def test_what_is_no_manifest_is_refused(data: bytes) -> None:
    """65 with its address, whatever it is; never a traceback."""
    with pytest.raises(WrongBytesError, match=r"The manifest s3://b/m cannot be read: .") as caught:
        parse_manifest(data, "s3://b/m", directory=True)

    assert len(caught.value.message) < 1000
    assert caught.value.hint


ODD: dict[str, dict[str, object]] = {
    "a path that is a number": {"path": 1},
    "a path that is null": {"path": None},
    "a path with half a character": {"path": "\ud800"},
    "a path that is empty": {"path": ""},
    "a size below zero": {"size": -1},
    "a size that is text": {"size": "1"},
    "a size that is true": {"size": True},
    "a size with a fraction": {"size": 1.0},
    "a size that is not a number": {"size": float("nan")},
    "a size beyond 64 bits": {"size": 2**63},
    "a sha256 that is null": {"sha256": None},
    "a sha256 in capitals": {"sha256": "A" * 64},
    "a sha256 that is too short": {"sha256": "a" * 63},
    "a sha256 with a line break": {"sha256": "a" * 64 + "\n"},
}


@pytest.mark.parametrize("fields", ODD.values(), ids=ODD.keys())
def test_a_file_that_is_not_described_rightly_is_refused(fields: dict[str, object]) -> None:
    """Each field has one type and one form."""
    parse_manifest(with_file(), "m", directory=False)

    with pytest.raises(WrongBytesError, match="cannot be read"):
        parse_manifest(with_file(**fields), "m", directory=False)


def test_a_single_objects_manifest_speaks_of_one_file() -> None:
    """Two would leave open which one it is."""
    with pytest.raises(WrongBytesError, match="2 files"):
        parse_manifest(changed(), "m", directory=False)


def test_differences_are_told_path_by_path() -> None:
    """Missing, too many, another size; a size that is not known is no difference."""
    stated = {"a": 1, "b": 2, "c": 3, "d": 4}
    there = {"a": 1, "b": None, "c": 30, "e": 5}

    assert manifest.describe_differences(stated, there) == [
        "'c' has 30 bytes, not 3",
        "'d' is missing",
        "'e' is not in the manifest",
    ]


def test_a_mismatch_lists_twenty_differences() -> None:
    """What comes after them is counted; a terminal is no place for a million lines."""
    twenty, more = (manifest.mismatch_error("m", [f"<{number}>" for number in range(count)]) for count in (20, 25))

    assert "<19>." in twenty.message
    assert "more" not in twenty.message
    assert "<19>; and 5 more." in more.message
    assert "--exclude" in more.hint
