"""Manifests: written as documented, parsed strictly, compared path by path."""

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


def make_manifest(**fields: object) -> bytes:
    """Return a valid manifest with some fields replaced."""
    return json.dumps({**GOOD, **fields}).encode()


def make_file_manifest(**fields: object) -> bytes:
    """Return a valid manifest of a single file with fields of its entry replaced and the digest recomputed."""
    single = json.loads(manifest_json({"m": b"x"}, directory=False))
    single["files"][0] |= fields
    single["digest"] = f"sha256:{single['files'][0]['sha256']}"
    return json.dumps(single).encode()


def drop_field(name: str) -> bytes:
    """Return a valid manifest without a field."""
    return json.dumps({key: value for key, value in GOOD.items() if key != name}).encode()


def test_directory_manifest_has_the_documented_fields() -> None:
    """The JSON of a directory's manifest has the fields of schema 1, on one line."""
    text = Manifest(ENTRIES).to_json(directory=True)
    fields = json.loads(text)

    assert (text.count("\n"), text[-1]) == (1, "\n")
    assert fields.pop("created")
    assert len(fields.pop("push")) == 32
    assert fields == {
        "schema": 1,
        "tool": f"modelfetch/{__version__}",
        "complete": True,
        "digest": directory_digest(FILES),
        "files": [{"path": f.path, "size": f.size, "sha256": f.sha256} for f in ENTRIES],
    }


def test_single_object_manifest_has_version_and_file_sha256() -> None:
    """For a single object, the manifest holds the store's version, and the digest is the file's sha256."""
    fields = json.loads(Manifest(ENTRIES[:1], version="v7").to_json(directory=False))

    assert (fields["version"], fields["digest"]) == ("v7", f"sha256:{ENTRIES[0].sha256}")


def test_parsed_manifest_equals_the_written_manifest() -> None:
    """Writing and parsing keep a directory's, a single object's and an incomplete manifest unchanged."""
    whole, single = Manifest(ENTRIES), Manifest(ENTRIES[1:], version="v7")

    assert parse_manifest(whole.to_json(directory=True).encode(), "m", directory=True) == whole
    assert parse_manifest(single.to_json(directory=False).encode(), "m", directory=False) == single
    assert parse_manifest(UNDER_WAY.to_json(directory=True).encode(), "m", directory=True) == UNDER_WAY


def test_unknown_fields_are_ignored() -> None:
    """A manifest of schema 1 with an additional field is accepted."""
    assert parse_manifest(make_manifest(licence="MIT"), "m", directory=True).files == ENTRIES


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
    "another schema": make_manifest(schema=2),
    "a schema that is text": make_manifest(schema="1"),
    "a schema that is true": make_manifest(schema=True),
    "a schema that is a tree": make_manifest(schema={"a": [1]}),
    **{f"no {name}": drop_field(name) for name in GOOD},
    "complete is text": make_manifest(complete="true"),
    "complete is 1": make_manifest(complete=1),
    "a version that is a number": make_manifest(version=1),
    "files is an object": make_manifest(files={"a": 1}),
    "no files": make_manifest(files=[]),
    "a file that is text": make_manifest(files=["a"]),
    "a file that is null": make_manifest(files=[None]),
    "a file without a size": make_manifest(files=[{"path": "a", "sha256": "0" * 64}]),
    "a digest of other files": make_manifest(digest=directory_digest({"a": b""})),
    "a digest that is null": make_manifest(digest=None),
    "a file twice": make_manifest(files=GOOD["files"] + GOOD["files"][:1]),
    "a file and its directory": manifest_json({"a": b"1", "a/b": b"2"}),
    "a path out of it": manifest_json({"../a": b"1"}),
    "an absolute path": manifest_json({"/etc/passwd": b"1"}),
    "a path with a line break": manifest_json({"a\nb": b"1"}),
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
def test_invalid_manifest_is_refused_with_its_address(data: bytes) -> None:
    """Invalid bytes raise WrongBytesError with address, short message and hint, never a traceback."""
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
def test_file_entry_with_an_invalid_field_is_refused(fields: dict[str, object]) -> None:
    """Each field of a file entry accepts a single type and form."""
    parse_manifest(make_file_manifest(), "m", directory=False)

    with pytest.raises(WrongBytesError, match="cannot be read"):
        parse_manifest(make_file_manifest(**fields), "m", directory=False)


def test_single_object_manifest_with_two_files_is_refused() -> None:
    """Two entries in a single object's manifest are ambiguous, and refused."""
    with pytest.raises(WrongBytesError, match="2 files"):
        parse_manifest(make_manifest(), "m", directory=False)


def test_differences_are_described_by_path() -> None:
    """Missing files, additional files and other sizes are described; an unknown size matches."""
    stated = {"a": 1, "b": 2, "c": 3, "d": 4}
    stored = {"a": 1, "b": None, "c": 30, "e": 5}

    assert manifest.describe_differences(stated, stored) == [
        "'c' has 30 bytes, not 3",
        "'d' is missing",
        "'e' is not in the manifest",
    ]


def test_mismatch_error_lists_twenty_differences() -> None:
    """The message lists twenty differences and counts the others, short enough for a terminal."""
    twenty, more = (manifest.mismatch_error("m", [f"<{number}>" for number in range(count)]) for count in (20, 25))

    assert "<19>." in twenty.message
    assert "more" not in twenty.message
    assert "<19>; and 5 more." in more.message
    assert "--exclude" in more.hint
