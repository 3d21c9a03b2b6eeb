"""What is to be pulled of what a source holds."""

from typing import Any

import pytest

from modelfetch.errors import (
    BudgetError,
    ModelfetchError,
    NotFoundError,
    UnsafeNameError,
    UsageError,
    WrongBytesError,
)
from modelfetch.plan import Plan, PlanLimits, make_plan
from modelfetch.sources import Listing, RemoteObject, parse_uri

URI = parse_uri("s3://b/m/")


def obj(path: str, size: int | None = 1, version: str = "v") -> RemoteObject:
    """An object of the model."""
    return RemoteObject(f"m/{path}", path, size, version)


def directory(*paths: str, folders: tuple[str, ...] = ()) -> Listing:
    """A directory of these files."""
    return Listing(tuple(obj(path) for path in paths), directory=True, folders=folders)


def single(path: str, size: int | None = 1) -> Listing:
    """One object."""
    return Listing((obj(path, size),), directory=False)


def make(found: Listing, uri: str = "s3://b/m/", **options: Any) -> Plan:
    """The plan, by default of everything."""
    return make_plan(found, parse_uri(uri), PlanLimits(**{"max_files": 1000, **options}))


def paths(plan: Plan) -> list[str]:
    """What is to be fetched."""
    return [one.path for one in plan.objects]


def test_files_of_a_plan_are_sorted_by_path() -> None:
    """Folders keep their place in the plan."""
    plan = make(directory("b", "a/c", "a-b", folders=("empty", "a")))

    assert paths(plan) == ["a-b", "a/c", "b"]
    assert (plan.folders, plan.size, plan.directory, plan.archive) == (("empty", "a"), 3, True, False)


def test_reserved_names_are_left_out_of_a_plan_and_counted() -> None:
    """Reserved names are left out at every depth, and counted without the manifests."""
    left = (".modelfetch-receipt", ".modelfetch/x/tree/a", "b/.modelfetch/x.lock", "b/.modelfetch.json")
    manifests = (".modelfetch-manifest", "b/a.modelfetch-manifest.json")
    plan = make(directory("a", *left, *manifests, folders=(".modelfetch", "b/.modelfetch/x", "b")))

    assert paths(plan) == ["a"]
    assert plan.folders == ("b",)
    assert plan.reserved == len(left)
    assert {obj.path for obj in plan.manifests} == set(manifests)


def test_manifest_of_the_new_name_wins_over_the_old() -> None:
    """Each manifest of the old name counts only where no manifest of the new name covers the same files."""
    new = (".modelfetch-manifest", "m.modelfetch-manifest")
    old = (".modelfetch-manifest.json", "m.modelfetch-manifest.json", "n.modelfetch-manifest.json")
    plan = make(directory("m", "n", *new, *old))

    assert {obj.path for obj in plan.manifests} == {*new, "n.modelfetch-manifest.json"}


@pytest.mark.parametrize("path", [".modelfetch-receipt", "m.modelfetch.json", "m.modelfetch-manifest"])
def test_single_object_with_a_reserved_name_is_a_usage_error(path: str) -> None:
    """A receipt or manifest is no model."""
    with pytest.raises(UsageError, match="named like a receipt or manifest"):
        make(single(path))


@pytest.mark.parametrize(
    ("include", "exclude", "left"),
    [
        (["*.bin"], [], ["a.bin", "w/0.bin"]),
        ([], ["*.bin"], ["README.md", "w/x.txt"]),
        (["w/*"], ["*.txt"], ["w/0.bin"]),
        (["*.bin", "*.md"], ["w/*"], ["README.md", "a.bin"]),
        (["[aR]*"], [], ["README.md", "a.bin"]),
        ([], ["w"], ["README.md", "a.bin", "w/0.bin", "w/x.txt"]),
        (["readme.md", "a.bin"], [], ["a.bin"]),
    ],
)
def test_globs_select_files_by_path_or_last_segment(include: list[str], exclude: list[str], left: list[str]) -> None:
    """By path or last segment, in their case; what is excluded is out whatever includes it."""
    assert paths(make(directory("README.md", "a.bin", "w/0.bin", "w/x.txt"), include=include, exclude=exclude)) == left


def test_globs_leave_empty_folders_out() -> None:
    """With `include`, only the parent folders of selected files are created."""
    found = directory("a", folders=("logs", "w"))

    assert make(found, exclude=["logs/*"]).folders == ("w",)
    assert make(found, include=["a"]).folders == ()


def test_globs_that_select_nothing_are_not_found() -> None:
    """The message states the number of listed files."""
    with pytest.raises(NotFoundError, match="None of the 2 files") as caught:
        make(directory("a", "b"), include=["c"])

    assert "--include" in caught.value.hint


@pytest.mark.parametrize(
    "found",
    [
        directory("../a"),
        directory("a//b"),
        directory("a", "a/b"),
        directory("a", "a"),
        directory("a", folders=("../x",)),
        directory("a", folders=("",)),
        directory("a", folders=("a",)),
        directory("a", folders=("a/b",)),
        single(".."),
        single("a\\b"),
    ],
)
def test_unsafe_or_clashing_keys_are_refused(found: Listing) -> None:
    """Folders are checked like files."""
    with pytest.raises(UnsafeNameError):
        make(found)


@pytest.mark.parametrize(
    ("found", "exclude"),
    [
        (directory("ok", "../a"), "../*"),
        (directory("ok", "x", "x/y"), "x/*"),
        (directory("ok", folders=("../x",)), "../*"),
        (directory("ok", folders=("x//y",)), "x/*"),
        (directory("ok", folders=("",)), "/"),
        (directory("ok", "a", folders=("a",)), "a/"),
    ],
)
def test_excluded_unsafe_key_does_not_refuse_the_plan(found: Listing, exclude: str) -> None:
    """As the hint of the refusal says."""
    assert "ok" in paths(make(found, exclude=[exclude]))


@pytest.mark.parametrize(
    ("found", "options", "error", "said"),
    [
        (directory("a", "b"), {"max_files": 1}, BudgetError, "2 files; 1 are allowed"),
        (directory("a", "b"), {"max_bytes": 1}, BudgetError, "2 bytes; 1 are allowed"),
        (single("a", 5), {"max_bytes": 4}, BudgetError, "5 bytes; 4 are allowed"),
        (single("a", 0), {}, WrongBytesError, "empty"),
    ],
)
def test_plan_over_budget_or_empty_object_is_refused(
    found: Listing, options: dict[str, Any], error: type[ModelfetchError], said: str
) -> None:
    """Exit code 65, with the numbers, before the first byte."""
    with pytest.raises(error, match=said) as caught:
        make(found, **options)

    assert (caught.value.code, bool(caught.value.hint)) == (65, True)


def test_budget_counts_selected_files_only() -> None:
    """Exactly the limit is allowed; empty files in a directory are allowed."""
    found = Listing((obj("a"), obj("b", 0), obj("c", 99)), directory=True)

    assert paths(make(found, exclude=["c"], max_bytes=1, max_files=2)) == ["a", "b"]


@pytest.mark.parametrize(
    ("found", "extract", "archive"),
    [
        (single("m.tar.gz"), True, True),
        (single("m.tar.gz"), False, False),
        (single("m.joblib.gz"), True, False),
        (single("m.pt"), True, False),
        (directory("m.tar.gz"), True, False),
    ],
)
def test_single_object_with_an_archive_name_is_extracted(found: Listing, extract: Any, archive: Any) -> None:
    """Neither an archive inside a directory, nor with extraction switched off."""
    assert make(found, extract=extract).archive == archive


def test_directory_version_changes_with_any_of_its_objects() -> None:
    """Content, name, number and folders count; the order of the listing does not."""
    base = (obj("a"), obj("b"))
    variants = [
        Listing(base, directory=True),
        Listing((obj("a"), obj("b", version="w")), directory=True),
        Listing((obj("a"), obj("b", size=2)), directory=True),
        Listing((obj("a"), obj("c")), directory=True),
        Listing((obj("a"),), directory=True),
        Listing((*base, obj("c")), directory=True),
        Listing(base, directory=True, folders=("f",)),
    ]

    versions = [make(found).version for found in variants]

    assert len(set(versions)) == len(variants)
    assert make(Listing(base[::-1], directory=True)).version == versions[0]
    assert versions[0].startswith("sha256:")


def test_version_of_a_single_object_is_the_store_s() -> None:
    """The version id, generation or ETag, unchanged."""
    assert make(single("a")).version == "v"


def test_resume_key_differs_between_versions_and_actions() -> None:
    """Bytes of another version are never resumed; without a version, no bytes are."""
    packed, plain = make(single("m.tar")), make(single("m.tar"), extract=False)
    elsewhere = make(single("m.tar"), uri="s3://b/n.tar")

    assert len({packed.resume_key, plain.resume_key, elsewhere.resume_key}) == 3
    assert make(Listing((obj("a", version=""),), directory=False)).resume_key == ""


@pytest.mark.parametrize(
    ("pinned_uri", "shown"), [("s3://b/m?versionId=v1", "s3://b/m?versionId=v1"), ("", "s3://b/m")]
)
def test_pinned_uri_is_the_plain_address_if_the_store_has_no_pins(pinned_uri: str, shown: str) -> None:
    """The object's own pinned address is shown for the ConfigMap, else the address as given."""
    found = Listing((obj("m")._replace(pinned_uri=pinned_uri),), directory=False)

    assert make(found, uri="s3://b/m").pinned_uri == shown


def test_version_and_pinned_uri_of_a_set_win_over_the_listings_digest() -> None:
    """A directory whose store versions the whole set has that version and address."""
    found = directory("a", "b")._replace(version="c0ffee", pinned_uri="toy://b/m/@c0ffee")

    assert (make(found).version, make(found).pinned_uri) == ("c0ffee", "toy://b/m/@c0ffee")
    assert make(directory("a", "b")).version.startswith("sha256:")
    assert make(directory("a", "b")).pinned_uri == "s3://b/m/"


def test_renamed_plan_has_the_new_file_name() -> None:
    """The file name of the destination replaces the object's."""
    plan = make(single("m.bin"))

    assert paths(plan.renamed_to("x")) == ["x"]
    assert plan.renamed_to("x").version == plan.version
