"""Fuzz tests: the same inputs in every short run, new inputs for longer with --full."""

import io
import os
import random
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as some

from modelfetch.archive.decompress import ForwardBuffer
from modelfetch.archive.symlinks import resolve_symlinks
from modelfetch.errors import ArchiveError, UnsafeNameError, WrongBytesError
from modelfetch.safe_paths import check_path, check_paths
from testkit import archives
from testkit.archives import GuardedExtractor
from tests.fuzz import archive_seeds, mutations, seeds
from tests.fuzz.targets import TARGETS, extract_archives

settings.register_profile(
    "short",
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow],
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
)
settings.register_profile("full", parent=settings.get_profile("short"), derandomize=False, max_examples=3000)
MUTATIONS_BY_PROFILE = {"short": 60, "full": 10_000}
SLOW = {"extract-archives": 0.7, "check-names": 0.5}  # share of the mutations that slow targets get

# Parts of names with a special meaning to some system.
parts = some.sampled_from(
    ["a", "b", "A", "é", "e\u0301", "..", ".", "", "a\\b", "\0", "\n", "\u202e", "~", "C:", "x" * 256]
)
segments = some.one_of(parts, some.text(max_size=8))
paths = some.lists(segments, min_size=1, max_size=5).map("/".join)
plain = some.lists(some.sampled_from(["a", "b", "c", "d"]), min_size=1, max_size=4).map("/".join)


@pytest.fixture(autouse=True)
def profile(request: pytest.FixtureRequest) -> str:
    """Return the hypothesis profile of this run."""
    return "full" if request.config.option.full else "short"


def run_profile(test: Callable[..., None]) -> Callable[..., None]:
    """Apply the profile when the test runs: pytest's options are unknown when hypothesis wants the settings."""

    def run(profile: str) -> None:
        settings(settings.get_profile(profile))(test)()

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


@pytest.mark.parametrize("name", TARGETS)
def test_corpus_and_seeds_break_no_target(name: str) -> None:
    """Every past finding and every seed passes its target."""
    for data in seeds.load_seeds(name):
        TARGETS[name](data)


@pytest.mark.filterwarnings("ignore")  # as in the program: the SDKs' parsers warn of guesses
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", TARGETS)
def test_damaged_input_raises_only_our_errors(name: str, profile: str) -> None:
    """Every target's assertions hold on mutations of the seeds."""
    rng = random.Random(name if profile == "short" else None)
    inputs = seeds.load_seeds(name)
    for _ in range(int(MUTATIONS_BY_PROFILE[profile] * SLOW.get(name, 1))):
        data = mutations.mutate(inputs, rng)
        try:
            TARGETS[name](data)
        except Exception as error:
            error.add_note(f"{name} of {data!r}")
            raise


@run_profile
@given(some.lists(paths, max_size=6))
def test_accepted_names_make_one_file_each(listed: list[str]) -> None:
    """An accepted list makes exactly these files below any directory."""
    try:
        check_paths(listed)
    except UnsafeNameError:
        return
    with tempfile.TemporaryDirectory() as place:
        for path in listed:
            at = Path(place, path)
            at.parent.mkdir(parents=True, exist_ok=True)
            at.touch(exist_ok=False)
        there = {at.relative_to(place).as_posix() for at in Path(place).rglob("*") if at.is_file()}
        assert there == set(listed)


@run_profile
@given(
    some.dictionaries(plain, some.lists(some.sampled_from(["a", "b", "c", "..", ".", ""]), max_size=5).map("/".join))
)
def test_symlinks_resolve_as_in_the_kernel_or_are_refused(links: dict[str, str]) -> None:
    """Refused are links that lead out, nowhere, in circles or above themselves."""
    files = {"a/b", "c", "b/a/c"}
    directories = {"a", "b", "b/a", *(str(up) for path in links for up in Path(path).parents if str(up) != ".")}
    links = {path: target for path, target in links.items() if target and not target.startswith("/")}
    links = {path: target for path, target in links.items() if path not in files | directories}
    if any(up in links or up in files for path in (*links, *files) for up in map(str, Path(path).parents)):
        return
    with tempfile.TemporaryDirectory() as place:
        root = Path(place).resolve() / "deep" / "root"
        for folder in directories:
            (root / folder).mkdir(parents=True, exist_ok=True)
        for file in files:
            (root / file).touch()
        for path, target in links.items():
            (root / path).symlink_to(target)
        inside = {path: _resolve_inside(root, path) for path in links}
        try:
            ends = resolve_symlinks(links, files, directories)
        except ArchiveError:
            assert not all(inside.values())
        else:
            assert ends == inside


def _resolve_inside(root: Path, path: str) -> str:
    """Return the kernel's resolution of a link that may be kept, else an empty string."""
    try:
        (root / path).stat()  # Python ignores a dot behind a file
        end = (root / path).resolve(strict=True)
    except (OSError, RuntimeError):
        return ""
    if not end.is_relative_to(root) or end in (root / path).parents:
        return ""
    # A path that leaves the tree and comes back breaks in another place.
    return end.relative_to(root).as_posix() if _stays_inside(root, path) else ""


def _stays_inside(root: Path, path: str) -> bool:
    moved = root.parent / "moved"
    root.rename(moved)
    try:
        return (moved / path).resolve(strict=True).is_relative_to(moved)
    except OSError:
        return False
    finally:
        moved.rename(root)


members = some.tuples(
    some.one_of(paths, plain, plain.map(lambda path: f"{path}/")),
    some.sampled_from([b"0", b"0", b"0", b"1", b"2", b"5", b"3", b"6", b"S", b"x", b"L", b"\0"]),
    some.binary(max_size=700),
    some.one_of(paths, plain),
    some.integers(0, 0o7777),
)


@run_profile
@given(some.lists(members, max_size=6), some.sampled_from(sorted(range(len(archive_seeds.WRAPPINGS)))))
def test_tars_of_any_members_are_extracted_or_refused(made: list[Any], way: int) -> None:
    """Members have any names, kinds and targets, in every compression."""
    raw = b""
    for name, kind, data, target, mode in made:
        content = data if kind in (b"0", b"x", b"L", b"\0") else b""
        with suppress(UnicodeEncodeError, AssertionError):
            raw += archives.tar_member(name[:90], content, kind, target=target[:90], mode=mode)
    extract_archives(bytes([way]) + archives.make_tar(raw))


@run_profile
@given(
    some.dictionaries(plain, some.binary(max_size=2000), min_size=1, max_size=6),
    some.sampled_from(sorted(archives.COMPRESSORS)),
)
def test_valid_archives_are_extracted(files: dict[str, bytes], how: str) -> None:
    """Names of one file each are extracted as packed, in every format."""
    try:
        check_paths(files, "member")
    except UnsafeNameError:
        return
    for packing in (how, "tar", "zip"):
        with tempfile.TemporaryDirectory() as place:
            root = GuardedExtractor(Path(place))(archives.pack_files(files, packing))
            assert {path: (root / path).read_bytes() for path in files} == files


entries = some.builds(
    archives.ZipEntry,
    name=some.one_of(paths, plain).map(lambda name: name.encode(errors="surrogatepass")[:300]),
    content=some.binary(max_size=100),
    mode=some.sampled_from([None, 0, 0o100644, 0o100755, 0o40755, 0o120777, 0o20644, 0o10644, 0o104755]),
    flags=some.sampled_from([0, 0, 0x800, 1, 0x40, 8]),
    method=some.sampled_from([0, 0, 0, 8, 12, 14, 93, 99]),
    size=some.one_of(some.none(), some.integers(0, 2**32 - 1)),
    crc=some.one_of(some.none(), some.integers(0, 2**32 - 1)),
    offset=some.one_of(some.none(), some.none(), some.integers(0, 2**32 - 1)),
    extra=some.binary(max_size=30),
)


@run_profile
@given(some.lists(entries, max_size=4), some.binary(max_size=30), some.one_of(some.none(), some.integers(0, 65_535)))
def test_zips_of_any_entries_are_extracted_or_refused(made: list[Any], comment: bytes, count: int | None) -> None:
    """Headers contradict each other in any way."""
    extract_archives(b"\0" + archives.make_raw_zip(*made, comment=comment, count=count))


@run_profile
@given(some.randoms(use_true_random=False))
def test_accepted_damaged_archives_hold_the_files_that_python_extracts(rng: random.Random) -> None:
    """If a damaged tar or zip is accepted, the standard library finds equal names and contents."""
    data = mutations.mutate(archive_seeds.make_seeds(), rng)
    whole = archive_seeds.wrap_archive(data)
    with tempfile.TemporaryDirectory() as place:
        try:
            root = GuardedExtractor(Path(place))(whole, max_bytes=2**22, max_files=50)
        except WrongBytesError:
            return
        theirs = _extract_with_python(whole)
        for path, content in (theirs or {}).items():
            assert (root / path).read_bytes() == content


def _extract_with_python(whole: bytes) -> dict[str, bytes] | None:
    """Return the regular files that Python finds; None for a format unknown to Python."""
    if whole[:2] == b"PK":
        with zipfile.ZipFile(io.BytesIO(whole)) as archive:
            regular = [info for info in archive.infolist() if info.external_attr >> 28 in (0, 8) and not info.is_dir()]
            # Names without the flag are taken as UTF-8, as written on Linux.
            return {info.filename.removeprefix("./"): archive.read(info) for info in regular if info.filename.isascii()}
    try:
        with tarfile.open(fileobj=io.BytesIO(whole)) as archive:
            found = [(info.name.removeprefix("./"), archive.extractfile(info)) for info in archive if info.isreg()]
            return {name: file.read() for name, file in found if file is not None}
    except (tarfile.TarError, OSError, EOFError):
        return None


@run_profile
@given(some.binary(max_size=3000), some.lists(some.integers(0, 3000)), some.lists(some.integers(0, 900), max_size=8))
def test_forward_buffer_returns_the_requested_bytes(data: bytes, cuts: list[int], sizes: list[int]) -> None:
    """Piece sizes make no difference to the result."""
    at = sorted({0, *(cut for cut in cuts if cut < len(data)), len(data)})
    forward = ForwardBuffer(iter([data[start:end] for start, end in pairwise(at)]))
    assert forward.peek_bytes(10) == data[:10]
    taken = b"".join(forward.read_up_to(size) for size in sizes)
    assert taken == data[: sum(sizes)]
    assert taken + b"".join(forward.read_rest()) == data
    with pytest.raises(ArchiveError):
        list(forward.read_exactly(1))


@run_profile
@given(paths)
def test_name_is_judged_alike_alone_and_in_a_list(path: str) -> None:
    """Accepted names are also normal to the operating system."""
    try:
        check_path(path)
    except UnsafeNameError:
        with pytest.raises(UnsafeNameError):
            check_paths([path])
    else:
        check_paths([path])
        assert os.path.normpath(f"/d/{path}") == f"/d/{path}"
