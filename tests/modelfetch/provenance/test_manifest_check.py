"""What a pull asks of manifests before the first byte; on local files, for the rules are the same everywhere."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from modelfetch import plan
from modelfetch.errors import MismatchError, RefusedError, TransientError, WrongBytesError
from modelfetch.plan import Plan
from modelfetch.provenance.manifest_check import check_manifest
from modelfetch.sources import RemoteObject, SourceOptions, parse_uri
from modelfetch.sources.file import FileSource
from testkit.file_tree import MANIFEST_NAME, manifest_json, sha256_hex, write_files

MODEL = {"config.json": b"{}", "w/1.bin": b"weights"}


def declared(
    path: Path, *, required: bool = False, include: Sequence[str] = (), exclude: Sequence[str] = ()
) -> tuple[Plan, dict[str, str]]:
    """The plan of a pull, and the sha256 that is stated of each path."""
    source = FileSource(parse_uri(str(path)), SourceOptions())
    limits = plan.PlanLimits(include=include, exclude=exclude, max_files=100)
    wanted = plan.make_plan(source.resolve(), source.uri, limits)
    told = check_manifest(source, wanted, limits.selects, required=required)
    return told, {o.path: told.manifest_sha256[o.key] for o in told.objects if o.key in told.manifest_sha256}


def sums(files: dict[str, bytes]) -> dict[str, str]:
    """The sha256 of each."""
    return {name: sha256_hex(data) for name, data in files.items()}


def test_a_manifest_states_what_every_file_must_be(tmp_path: Path) -> None:
    """It is no part of the model itself."""
    write_files(tmp_path, MODEL | {MANIFEST_NAME: manifest_json(MODEL)})

    wanted, stated = declared(tmp_path, required=True)

    assert stated == sums(MODEL)
    assert wanted.fully_declared
    assert [o.path for o in wanted.objects] == sorted(MODEL)


def test_without_a_manifest_nothing_is_stated(tmp_path: Path) -> None:
    """As before there were any."""
    write_files(tmp_path, MODEL)

    wanted, stated = declared(tmp_path)

    assert (stated, wanted.fully_declared) == ({}, False)


@pytest.mark.parametrize("path", ["", "config.json"])
def test_a_manifest_that_is_required_must_be_there(tmp_path: Path, path: str) -> None:
    """65, and how to get one."""
    write_files(tmp_path, MODEL)

    with pytest.raises(WrongBytesError, match="no manifest") as caught:
        declared(tmp_path / path, required=True)

    assert "modelfetch push" in caught.value.hint


def test_what_is_missing_too_much_or_of_another_size_is_told_at_once(tmp_path: Path) -> None:
    """All of it in one error."""
    write_files(
        tmp_path, {"a": b"12", "c": b"3", "d": b"4", MANIFEST_NAME: manifest_json({"a": b"1", "b": b"2", "d": b"4"})}
    )

    with pytest.raises(MismatchError) as caught:
        declared(tmp_path)

    assert "'a' has 2 bytes, not 1; 'b' is missing; 'c' is not in the manifest." in caught.value.message
    assert "--exclude" in caught.value.hint


@pytest.mark.parametrize(("include", "exclude"), [(["w/*"], []), ([], ["config.json", "extra"])])
def test_only_what_is_chosen_is_compared(tmp_path: Path, include: list[str], exclude: list[str]) -> None:
    """A file that is left out may be missing, too many, or another."""
    write_files(tmp_path, {"config.json": b"another", "extra": b"1", "w/1.bin": MODEL["w/1.bin"]})
    write_files(tmp_path, {MANIFEST_NAME: manifest_json(MODEL | {"config.json": b"{}"})})

    _, stated = declared(tmp_path, required=True, include=include, exclude=exclude)

    assert stated == sums({"w/1.bin": MODEL["w/1.bin"]})


def test_a_pattern_that_matches_the_manifest_does_not_switch_it_off(tmp_path: Path) -> None:
    """It is no file of the model: `--exclude '*.json'` is about those."""
    write_files(tmp_path, MODEL | {MANIFEST_NAME: manifest_json({**MODEL, "w/1.bin": b"longer weights"})})

    with pytest.raises(MismatchError, match=r"w/1\.bin"):
        declared(tmp_path, exclude=["*.json"])


@pytest.mark.parametrize("files", [{}, MODEL])
def test_a_push_that_is_under_way_is_transient(tmp_path: Path, files: dict[str, bytes]) -> None:
    """Also if none of its files is there yet: it heals by itself, or by another push."""
    write_files(tmp_path, files | {MANIFEST_NAME: manifest_json({}, complete=False)})

    with pytest.raises(TransientError, match="push is under way") as caught:
        declared(tmp_path)

    assert "push the model again" in caught.value.hint


def test_a_single_files_manifest_stands_beside_it(tmp_path: Path) -> None:
    """It holds whatever the file is called now: a copy may have another name."""
    write_files(tmp_path, {"copy": b"1", "copy" + MANIFEST_NAME: manifest_json({"m": b"1"}, directory=False)})

    _, stated = declared(tmp_path / "copy", required=True)

    assert stated == sums({"copy": b"1"})


def test_a_single_file_of_another_size_is_refused(tmp_path: Path) -> None:
    """As between a push's object and its manifest."""
    write_files(tmp_path, {"m": b"12", "m" + MANIFEST_NAME: manifest_json({"m": b"1"}, directory=False)})

    with pytest.raises(MismatchError, match="'m' has 2 bytes, not 1") as caught:
        declared(tmp_path / "m")

    assert "a push is about to end" in caught.value.hint


def test_the_manifests_of_several_models_below_one_directory_all_count(tmp_path: Path) -> None:
    """A repository of models, each pushed for itself: directories and files."""
    one, two = {"a": b"1", "d/b": b"2"}, {"m": b"3"}
    write_files(tmp_path / "one", one | {MANIFEST_NAME: manifest_json(one)})
    write_files(tmp_path, two | {"m" + MANIFEST_NAME: manifest_json(two, directory=False)})

    wanted, stated = declared(tmp_path, required=True)

    assert stated == sums({"one/a": b"1", "one/d/b": b"2", "m": b"3"})
    assert len(wanted.objects) == 3


def test_one_model_that_is_half_pushed_keeps_the_whole_from_being_pulled(tmp_path: Path) -> None:
    """Unless it is left out."""
    write_files(tmp_path, {"a/m": b"1", "b/m": b"2", "b/" + MANIFEST_NAME: manifest_json({}, complete=False)})

    with pytest.raises(TransientError, match="b/ is not all there"):
        declared(tmp_path)

    assert declared(tmp_path, exclude=["b/*"])[1] == {}


def test_each_file_needs_a_manifest_if_one_is_required(tmp_path: Path) -> None:
    """One that speaks of a part is not enough."""
    write_files(tmp_path, {"a/m": b"1", "a/" + MANIFEST_NAME: manifest_json({"m": b"1"}), "b": b"2"})

    with pytest.raises(WrongBytesError, match="no manifest of 1 of the 2 files"):
        declared(tmp_path, required=True)


def test_two_manifests_may_not_contradict_each_other(tmp_path: Path) -> None:
    """The directory's and that of a part of it, pushed anew with the same sizes."""
    write_files(
        tmp_path,
        {"d/m": b"1", "d/" + MANIFEST_NAME: manifest_json({"m": b"1"}), MANIFEST_NAME: manifest_json({"d/m": b"2"})},
    )

    with pytest.raises(MismatchError, match="another file in another manifest"):
        declared(tmp_path)


def test_a_manifest_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    """It would not fit into a small container's memory; nothing of it is fetched."""
    write_files(tmp_path, MODEL)
    with (tmp_path / MANIFEST_NAME).open("wb") as file:
        file.truncate(64 * 1024**2 + 1)

    with pytest.raises(WrongBytesError, match="too many to be read"):
        declared(tmp_path)


class Forbidding(FileSource):
    """A store that denies what is not there, as S3 does to who may not list."""

    def sidecar(self, obj: RemoteObject, suffix: str) -> RemoteObject | None:
        """See `Source.sidecar`."""
        raise RefusedError(f"{obj.key}{suffix} may not be asked for.", hint="Ask.")


def test_a_manifest_that_may_not_be_asked_for_counts_as_none(tmp_path: Path) -> None:
    """Unless it is required: then the refusal is the reason."""
    write_files(tmp_path, MODEL)
    source = Forbidding(parse_uri(str(tmp_path / "config.json")), SourceOptions())
    wanted = plan.make_plan(source.resolve(), source.uri, plan.PlanLimits(max_files=1))

    assert check_manifest(source, wanted, lambda _: True, required=False).manifest_sha256 == {}
    with pytest.raises(RefusedError, match="may not be asked for"):
        check_manifest(source, wanted, lambda _: True, required=True)
