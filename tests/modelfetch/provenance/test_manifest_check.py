"""Check of a plan against manifests, before the first byte; on local files, with the same rules as other stores."""

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


def check_model(
    path: Path, *, required: bool = False, include: Sequence[str] = (), exclude: Sequence[str] = ()
) -> tuple[Plan, dict[str, str]]:
    """Return the checked plan of a path, and the stated sha256 by path."""
    source = FileSource(parse_uri(str(path)), SourceOptions())
    limits = plan.PlanLimits(include=include, exclude=exclude, max_files=100)
    planned = plan.make_plan(source.resolve(), source.uri, limits)
    checked = check_manifest(source, planned, limits, required=required)
    return checked, {
        o.path: checked.manifest_sha256[o.key] for o in checked.objects if o.key in checked.manifest_sha256
    }


def sha256_by_path(files: dict[str, bytes]) -> dict[str, str]:
    """Return the sha256 of each file by path."""
    return {name: sha256_hex(data) for name, data in files.items()}


def test_manifest_states_the_sha256_of_every_file(tmp_path: Path) -> None:
    """The plan gets the sha256 of each file; the manifest is not part of the model."""
    write_files(tmp_path, MODEL | {MANIFEST_NAME: manifest_json(MODEL)})

    planned, stated = check_model(tmp_path, required=True)

    assert stated == sha256_by_path(MODEL)
    assert planned.fully_declared
    assert [o.path for o in planned.objects] == sorted(MODEL)


def test_model_without_manifest_has_no_stated_sha256(tmp_path: Path) -> None:
    """Without a manifest, the plan has no stated sha256 and no error is raised."""
    write_files(tmp_path, MODEL)

    planned, stated = check_model(tmp_path)

    assert (stated, planned.fully_declared) == ({}, False)


@pytest.mark.parametrize("path", ["", "config.json"])
def test_missing_required_manifest_is_refused_with_a_hint(tmp_path: Path, path: str) -> None:
    """A required but missing manifest raises WrongBytesError; the hint names `modelfetch push`."""
    write_files(tmp_path, MODEL)

    with pytest.raises(WrongBytesError, match="no manifest") as caught:
        check_model(tmp_path / path, required=True)

    assert "modelfetch push" in caught.value.hint


def test_all_differences_are_in_one_message(tmp_path: Path) -> None:
    """Missing files, additional files and other sizes appear in one error."""
    write_files(
        tmp_path, {"a": b"12", "c": b"3", "d": b"4", MANIFEST_NAME: manifest_json({"a": b"1", "b": b"2", "d": b"4"})}
    )

    with pytest.raises(MismatchError) as caught:
        check_model(tmp_path)

    assert "'a' has 2 bytes, not 1; 'b' is missing; 'c' is not in the manifest." in caught.value.message
    assert "--exclude" in caught.value.hint


@pytest.mark.parametrize(("include", "exclude"), [(["w/*"], []), ([], ["config.json", "extra"])])
def test_only_selected_files_are_compared(tmp_path: Path, include: list[str], exclude: list[str]) -> None:
    """A file outside the globs may be missing, additional or altered."""
    write_files(tmp_path, {"config.json": b"another", "extra": b"1", "w/1.bin": MODEL["w/1.bin"]})
    write_files(tmp_path, {MANIFEST_NAME: manifest_json(MODEL | {"config.json": b"{}"})})

    _, stated = check_model(tmp_path, required=True, include=include, exclude=exclude)

    assert stated == sha256_by_path({"w/1.bin": MODEL["w/1.bin"]})


def test_glob_matching_the_manifest_does_not_disable_the_check(tmp_path: Path) -> None:
    """`--exclude '*.json'` selects files of the model; the manifest is still compared."""
    write_files(tmp_path, MODEL | {MANIFEST_NAME: manifest_json({**MODEL, "w/1.bin": b"longer weights"})})

    with pytest.raises(MismatchError, match=r"w/1\.bin"):
        check_model(tmp_path, exclude=["*.json"])


@pytest.mark.parametrize("files", [{}, MODEL])
def test_incomplete_manifest_is_a_transient_error(tmp_path: Path, files: dict[str, bytes]) -> None:
    """A push under way is transient, with or without files uploaded already; the hint suggests another push."""
    write_files(tmp_path, files | {MANIFEST_NAME: manifest_json({}, complete=False)})

    with pytest.raises(TransientError, match="push is under way") as caught:
        check_model(tmp_path)

    assert "push the model again" in caught.value.hint


def test_sidecar_manifest_applies_to_a_renamed_file(tmp_path: Path) -> None:
    """A single file's sidecar manifest applies under any file name, also a copy's."""
    write_files(tmp_path, {"copy": b"1", "copy" + MANIFEST_NAME: manifest_json({"m": b"1"}, directory=False)})

    _, stated = check_model(tmp_path / "copy", required=True)

    assert stated == sha256_by_path({"copy": b"1"})


def test_single_file_with_another_size_is_refused(tmp_path: Path) -> None:
    """Another size, as between a push's object and its manifest, raises MismatchError with a hint."""
    write_files(tmp_path, {"m": b"12", "m" + MANIFEST_NAME: manifest_json({"m": b"1"}, directory=False)})

    with pytest.raises(MismatchError, match="'m' has 2 bytes, not 1") as caught:
        check_model(tmp_path / "m")

    assert "a push is about to end" in caught.value.hint


def test_manifests_of_all_models_below_a_directory_are_combined(tmp_path: Path) -> None:
    """In a repository of separately pushed models, manifests of directories and of single files add up."""
    first, second = {"a": b"1", "d/b": b"2"}, {"m": b"3"}
    write_files(tmp_path / "one", first | {MANIFEST_NAME: manifest_json(first)})
    write_files(tmp_path, second | {"m" + MANIFEST_NAME: manifest_json(second, directory=False)})

    planned, stated = check_model(tmp_path, required=True)

    assert stated == sha256_by_path({"one/a": b"1", "one/d/b": b"2", "m": b"3"})
    assert len(planned.objects) == 3


def test_incomplete_manifest_of_a_part_blocks_the_pull_unless_excluded(tmp_path: Path) -> None:
    """A push under way in a subdirectory is an error, unless the globs exclude the subdirectory."""
    write_files(tmp_path, {"a/m": b"1", "b/m": b"2", "b/" + MANIFEST_NAME: manifest_json({}, complete=False)})

    with pytest.raises(TransientError, match="b/ is not all there"):
        check_model(tmp_path)

    assert check_model(tmp_path, exclude=["b/*"])[1] == {}


def test_required_manifest_must_list_every_file(tmp_path: Path) -> None:
    """A required manifest of only a part of the files is refused with the number of missing files."""
    write_files(tmp_path, {"a/m": b"1", "a/" + MANIFEST_NAME: manifest_json({"m": b"1"}), "b": b"2"})

    with pytest.raises(WrongBytesError, match="no manifest of 1 of the 2 files"):
        check_model(tmp_path, required=True)


def test_contradicting_manifests_are_refused(tmp_path: Path) -> None:
    """A subdirectory pushed again with equal sizes contradicts the directory's manifest, and is refused."""
    write_files(
        tmp_path,
        {"d/m": b"1", "d/" + MANIFEST_NAME: manifest_json({"m": b"1"}), MANIFEST_NAME: manifest_json({"d/m": b"2"})},
    )

    with pytest.raises(MismatchError, match="another file in another manifest"):
        check_model(tmp_path)


def test_too_large_manifest_is_refused_unread(tmp_path: Path) -> None:
    """A manifest over 64 MiB, too large for a small container's memory, is refused before any byte is fetched."""
    write_files(tmp_path, MODEL)
    with (tmp_path / MANIFEST_NAME).open("wb") as file:
        file.truncate(64 * 1024**2 + 1)

    with pytest.raises(WrongBytesError, match="too many to be read"):
        check_model(tmp_path)


class ForbiddingSource(FileSource):
    """Store that denies missing objects, like S3 without the right to list."""

    def sidecar(self, obj: RemoteObject, suffix: str) -> RemoteObject | None:
        """Deny the request; see `Source.sidecar`."""
        raise RefusedError(f"{obj.key}{suffix} may not be asked for.", hint="Ask.")


def test_forbidden_manifest_counts_as_missing_unless_required(tmp_path: Path) -> None:
    """A refused request means no manifest; with a required manifest, the refusal is raised."""
    write_files(tmp_path, MODEL)
    source = ForbiddingSource(parse_uri(str(tmp_path / "config.json")), SourceOptions())
    planned = plan.make_plan(source.resolve(), source.uri, plan.PlanLimits(max_files=1))

    assert check_manifest(source, planned, plan.PlanLimits(), required=False).manifest_sha256 == {}
    with pytest.raises(RefusedError, match="may not be asked for"):
        check_manifest(source, planned, plan.PlanLimits(), required=True)
