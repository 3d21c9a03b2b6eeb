import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from modelfetch.errors import DestinationError, UnsafeNameError
from modelfetch.safe_paths import MAX_PATH_BYTES

EXTRACT_SCRIPT = """
import sys
from pathlib import Path
from modelfetch.archive import Budget, extract_archive
from modelfetch.errors import ModelfetchError
from modelfetch.volume.staged_tree import StagedTree

place = Path(sys.argv[1])
try:
    with (place / "archive").open("rb") as stream:
        budget = Budget(int(sys.argv[2]), 99, 1000)
        tree = StagedTree(place / "into")
        print(*extract_archive(stream, "m.tar", tree, scratch=place / "scratch", budget=budget), sep="\\n")
except ModelfetchError as error:
    print(type(error).__name__, error.code, error.message, error.hint)
"""


def extract_under_strace(place: Path, archive: bytes, *options: str, max_bytes: int = 10**6) -> str:
    """Extract in a process with injected system call failures, and return the output."""
    if shutil.which("strace") is None:
        pytest.skip("needs strace")
    (place / "into").mkdir()
    (place / "archive").write_bytes(archive)
    trace = ("strace", "-f", "-qq", "-o", str(place / "log"), *options)
    command = [*trace, sys.executable, "-c", EXTRACT_SCRIPT, str(place), str(max_bytes)]
    run = subprocess.run(command, capture_output=True, check=False, text=True)
    printed: str = run.stdout
    if "ptrace" in run.stderr:
        pytest.skip("strace may not trace here")
    assert run.returncode == 0, run.stderr
    assert "INJECTED" in (place / "log").read_text()
    return printed


@pytest.mark.process
@pytest.mark.parametrize("code", ["EPERM", "EMLINK", "EOPNOTSUPP"])
def test_hard_link_is_copied_when_the_file_system_refuses_hard_links(build: Any, tmp_path: Path, code: str) -> None:
    """Some file systems have no hard links, others limit their number; content and mode of the copy are equal."""
    archive = build.tar(build.member("good", b"x" * 1000, mode=0o755), build.member("d/copy", kind=b"1", target="good"))

    printed = extract_under_strace(tmp_path, archive, "-e", f"inject=link,linkat:error={code}")

    assert "path='d/copy', size=1000" in printed
    assert (tmp_path / "into/d/copy").read_bytes() == b"x" * 1000
    assert (tmp_path / "into/d/copy").stat().st_mode & 0o777 == 0o755
    assert not (tmp_path / "into/d/copy").samefile(tmp_path / "into/good")


@pytest.mark.process
def test_copied_hard_link_counts_towards_the_byte_budget(build: Any, tmp_path: Path) -> None:
    """A copy in place of a hard link needs space like any file."""
    archive = build.tar(build.member("good", b"x" * 1000), build.member("copy", kind=b"1", target="good"))
    printed = extract_under_strace(tmp_path, archive, "-e", "inject=link,linkat:error=EPERM", max_bytes=1500)
    assert printed.startswith("BudgetError 65")


@pytest.mark.process
@pytest.mark.parametrize(
    ("code", "calls", "path"),
    [
        *(("EIO", "write", "into/good"), ("EDQUOT", "write", "into/good"), ("ENOSPC", "write", "into/good")),
        *(("EIO", "close", "into/good"), ("EPERM", "fchmod", "into/good"), ("EACCES", "fchmod", "into/d")),
        *(("EROFS", "mkdirat", "into/d"), ("EIO", "symlinkat", "into/l"), ("EIO", "linkat", "into/h")),
        ("ENOSPC", "openat", "into/good"),
    ],
)
def test_disk_failure_exits_73_with_the_path(build: Any, tmp_path: Path, code: str, calls: str, path: str) -> None:
    """A failed write is a DestinationError with file and cause, not a corrupt archive."""
    link = build.member("l", kind=b"2", target="good")
    hard = build.member("h", kind=b"1", target="good")
    archive = build.tar(build.member("d/", kind=b"5"), build.member("good", b"x" * 1000), link, hard)

    named = tmp_path / path  # calls relative to a descriptor are known by the descriptor's path
    when = ":when=3" if calls == "openat" else ""  # after the directories `into` and `d`
    inject = ("-P", str(named.parent if calls.endswith("at") else named), "-e", f"inject={calls}:error={code}{when}")
    printed = extract_under_strace(tmp_path, archive, *inject)

    assert printed.startswith("DestinationError 73")
    assert path in printed


@pytest.mark.process
@pytest.mark.parametrize(("code", "calls"), [("ENOSPC", "write"), ("EIO", "read"), ("EACCES", "openat")])
def test_scratch_file_failure_exits_73_and_removes_the_file(build: Any, tmp_path: Path, code: str, calls: str) -> None:
    """A failure of the zip's scratch file is a DestinationError; the scratch file is removed."""
    archive = build.packed({"good": os.urandom(200_000)}, "zip")
    inject = ("-P", str(tmp_path / "scratch"), "-e", f"inject={calls}:error={code}")
    assert extract_under_strace(tmp_path, archive, *inject).startswith("DestinationError 73")
    assert not (tmp_path / "scratch").exists()


@pytest.mark.parametrize("archive_format", ["tar", "zip"])
def test_file_over_the_size_limit_of_the_process_is_a_destination_error(
    build: Any, extract: Any, archive_format: str
) -> None:
    """RLIMIT_FSIZE is reached by the scratch file (zip) or by the member (tar)."""
    archive = build.packed({"good": os.urandom(300_000)}, archive_format)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, before[1]))
    try:
        with pytest.raises(DestinationError, match="File too large"):
            extract(archive)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a file system of one megabyte."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command: list[str | Path] = ["mount", "-t", "tmpfs", "-o", "size=1m,nr_inodes=100", "tmpfs", disk]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("needs root, to mount")
    yield disk
    subprocess.run(["umount", disk], check=True)


@pytest.mark.process
@pytest.mark.parametrize("archive_format", ["tar", "gzip", "bzip2", "xz", "zstd", "zip"])
def test_full_disk_is_a_destination_error(build: Any, extract: Any, small_disk: Path, archive_format: str) -> None:
    """Space and inodes of the disk run out."""
    for files in ({"good": os.urandom(2_000_000)}, {str(number): b"" for number in range(200)}):
        into = small_disk / str(len(files))
        into.mkdir()
        with pytest.raises(DestinationError, match="No space left") as caught:
            extract(build.packed(files, archive_format), into=into)
        assert caught.value.hint
        shutil.rmtree(into)


@pytest.mark.parametrize("name", ["MODEL.bin", "d", "d/MODEL.bin"])
def test_existing_path_is_refused_as_a_name_clash(build: Any, extract: Any, tmp_path: Path, name: str) -> None:
    """An existing path without a member of the same name means a volume that ignores case."""
    into = tmp_path / "into"
    (into / name).parent.mkdir(parents=True)
    (into / name).write_bytes(b"theirs")
    archive = build.packed({"model.bin": b"x", "d/model.bin": b"x", "MODEL.bin": b"y", "d/MODEL.bin": b"y"}, "tar")
    if name == "d/MODEL.bin":
        archive = build.tar(build.member("d/MODEL.bin", b"y"))
        with pytest.raises(UnsafeNameError, match="cannot keep 'd' and"):
            extract(archive, into=into)
    elif name == "d":
        with pytest.raises(UnsafeNameError, match="cannot keep 'd' and 'what is there'"):
            extract(archive, into=into)
    else:
        with pytest.raises(UnsafeNameError, match=r"cannot keep 'MODEL.bin' and 'model.bin' apart"):
            extract(archive, into=into)
    assert (into / name).read_bytes() == b"theirs"


@pytest.mark.parametrize(
    ("one", "other"), [("é", "e\u0301"), ("\ufb01n", "fin"), ("straße", "STRASSE"), ("\u017f", "s")]
)
def test_clash_of_unicode_forms_names_both_paths(
    build: Any, extract: Any, tmp_path: Path, one: str, other: str
) -> None:
    """APFS ignores the Unicode form, other file systems the case beyond ASCII."""
    into = tmp_path / "into"
    into.mkdir()
    (into / other).write_bytes(b"theirs")
    with pytest.raises(UnsafeNameError) as caught:
        extract(build.packed({one: b"x", other: b"y"}, "tar"), into=into)
    assert repr(one) in caught.value.message
    assert repr(other) in caught.value.message


def test_existing_symlink_is_refused_and_not_followed(build: Any, extract: Any, tmp_path: Path) -> None:
    """Files are always created anew, never written through a symlink."""
    (tmp_path / "outside").write_bytes(b"theirs")
    into = tmp_path / "into"
    into.mkdir()
    (into / "good").symlink_to(tmp_path / "outside")
    with pytest.raises(UnsafeNameError):
        extract(build.packed({"good": b"ours"}, "tar"), into=into)
    assert (tmp_path / "outside").read_bytes() == b"theirs"


def test_path_too_long_below_the_destination_is_refused(build: Any, extract: Any) -> None:
    """A valid member path can exceed PATH_MAX below the destination's own path."""
    name = "/".join([*["d" * 200] * 20, "e" * 70])
    assert len(name) <= MAX_PATH_BYTES < len(f"{extract.place}/{name}")
    with pytest.raises(UnsafeNameError, match="too long for the destination's file system") as caught:
        extract(build.packed({name: b"x"}, "tar"))
    assert len(caught.value.message) < 400
