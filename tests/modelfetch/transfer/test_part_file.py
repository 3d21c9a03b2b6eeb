"""A file while its bytes arrive."""

import errno
import os
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from modelfetch import checksums
from modelfetch.errors import DestinationError, UnsafeNameError
from modelfetch.sources import RemoteObject
from modelfetch.transfer.part_file import BLOCK_SIZE, PART_SIZE, PartFile
from modelfetch.volume.resume_journal import ResumeJournal
from modelfetch.volume.staged_tree import StagedTree
from testkit.file_tree import random_bytes, sha256_hex

SIZE = 2 * BLOCK_SIZE + 5
DATA = random_bytes(SIZE)


Begin = Callable[..., PartFile]


@pytest.fixture
def begin() -> Iterator[Begin]:
    """Return a function that starts a part file for an object; a second call is the run after a crash."""
    with ExitStack() as stack:

        def make(root: Path, obj: RemoteObject | None = None) -> PartFile:
            journal = stack.enter_context(closing(ResumeJournal(root / "journal", "p")))
            journal.open()
            tree = stack.enter_context(StagedTree(root))
            return stack.enter_context(closing(PartFile(obj or RemoteObject("k", "m", SIZE, "v"), tree, journal)))

        yield make


def bring(landing: PartFile, block: int, data: bytes = DATA) -> None:
    """Write one block and record the block."""
    start, end = landing.blocks[block]
    piece = memoryview(data)[start:end]
    landing.write(piece, start)
    landing.finish_block(block, checksums.update_crc(landing.algorithm, piece))


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0], [1, 2, 0]])
def test_blocks_in_any_order_give_the_whole_file(begin: Begin, tmp_path: Path, order: list[int]) -> None:
    """The digests equal the digests of the file."""
    landing = begin(tmp_path)
    for block in order:
        bring(landing, block)
    came = landing.fingerprint()
    landing.close()

    assert (tmp_path / "m").read_bytes() == DATA
    crc = checksums.format_crc("crc64nvme", checksums.update_crc("crc64nvme", DATA))
    assert (came.size, came.checksums) == (SIZE, {"sha256": sha256_hex(DATA), "crc64nvme": crc})


def test_blocks_from_several_threads_give_the_whole_file(begin: Begin, tmp_path: Path) -> None:
    """The threads write different blocks at the same time."""
    data = random_bytes(9 * BLOCK_SIZE + 1)
    landing = begin(tmp_path, RemoteObject("k", "m", len(data), "v", checksums={"crc32c": "", "md5": ""}))
    blocks = random.Random(0).sample(range(len(landing.blocks)), len(landing.blocks))

    def bring_all(some: list[int]) -> None:
        for block in some:
            bring(landing, block, data)

    threads = [threading.Thread(target=bring_all, args=(some,)) for some in (blocks[::3], blocks[1::3], blocks[2::3])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    came = landing.fingerprint()
    landing.close()

    crc = checksums.format_crc("crc32c", checksums.update_crc("crc32c", data))
    assert came.checksums == {"sha256": sha256_hex(data), "crc32c": crc}


def test_resumed_file_knows_the_checksums_of_the_first_response(begin: Begin, tmp_path: Path) -> None:
    """A listing may state none: resumed bytes could not be verified."""
    first = begin(tmp_path)
    first.expect_checksums({"crc32": "of all"})
    bring(first, 0)
    first.close()

    again = begin(tmp_path)

    assert again.resumed_bytes == BLOCK_SIZE
    assert again.obj.checksums == {"crc32": "of all"}


def test_empty_file_has_no_missing_blocks(begin: Begin, tmp_path: Path) -> None:
    """The file exists, and has a digest."""
    landing = begin(tmp_path, RemoteObject("k", "m", 0, "v"))

    assert landing.missing_parts == []
    assert landing.fingerprint().sha256 == sha256_hex(b"")
    landing.close()
    assert (tmp_path / "m").read_bytes() == b""


@pytest.mark.parametrize(
    "obj",
    [RemoteObject("k", "m", None, "v"), RemoteObject("k", "m", SIZE, "v", ranges=False)],
    ids=["no size", "no ranges"],
)
def test_object_without_ranges_is_one_block(begin: Begin, tmp_path: Path, obj: RemoteObject) -> None:
    """An object of unknown size, or a server without ranges."""
    landing = begin(tmp_path, obj)
    assert landing.missing_parts == [[0]]
    bring(landing, 0)

    assert (landing.fingerprint().size, landing.fingerprint().sha256) == (SIZE, sha256_hex(DATA))
    landing.close()


def test_neighbouring_missing_blocks_form_one_part(begin: Begin, tmp_path: Path) -> None:
    """Up to the size of one request."""
    landing = begin(tmp_path, RemoteObject("k", "m", PART_SIZE + 3 * BLOCK_SIZE, "v"))
    assert landing.missing_parts == [[0, 1, 2, 3], [4, 5, 6]]

    landing.finish_block(1, 0)
    landing.finish_block(4, 0)
    assert landing.missing_parts == [[0], [2, 3], [5, 6]]
    landing.close()


def test_second_run_resumes_the_blocks_on_disk(begin: Begin, tmp_path: Path) -> None:
    """Only the missing blocks are requested."""
    first = begin(tmp_path)
    bring(first, 0)
    bring(first, 2)
    first.close()

    second = begin(tmp_path)
    assert (second.resumed_bytes, second.missing_blocks) == (BLOCK_SIZE + 5, [1])
    bring(second, 1)

    assert second.fingerprint().sha256 == sha256_hex(DATA)
    second.close()


@pytest.mark.parametrize(
    ("harm", "missing"),
    [
        (lambda file: (file.seek(1), file.write(b"\0")), [0]),
        (lambda file: file.truncate(BLOCK_SIZE + 1), [1, 2]),
        (lambda file: file.truncate(0), [0, 1, 2]),
    ],
    ids=["flipped", "cut", "emptied"],
)
def test_blocks_with_another_crc_are_fetched_again(
    begin: Begin, tmp_path: Path, harm: Callable[..., None], missing: list[int]
) -> None:
    """A crash of the node may have lost bytes that the journal lists."""
    first = begin(tmp_path)
    for block in range(3):
        bring(first, block)
    first.close()
    with (tmp_path / "m").open("r+b") as file:
        harm(file)

    second = begin(tmp_path)
    assert second.missing_blocks == missing
    for block in missing:
        bring(second, block)

    assert second.fingerprint().sha256 == sha256_hex(DATA)
    second.close()


def test_resumed_file_of_unknown_size_is_truncated(begin: Begin, tmp_path: Path) -> None:
    """Bytes without a matching CRC are not kept."""
    unknown = RemoteObject("k", "m", None, "v")
    first = begin(tmp_path, unknown)
    bring(first, 0)
    first.close()
    with (tmp_path / "m").open("ab") as file:
        file.write(b"tail")

    second = begin(tmp_path, unknown)
    assert (second.resumed_bytes, second.missing_blocks) == (0, [0])
    bring(second, 0)

    assert (second.fingerprint().size, second.fingerprint().sha256) == (SIZE, sha256_hex(DATA))
    second.close()
    assert (tmp_path / "m").read_bytes() == DATA


def test_checksums_of_the_first_response_are_compared(begin: Begin, tmp_path: Path) -> None:
    """The listing states no checksums."""
    landing = begin(tmp_path)
    landing.expect_checksums({"crc32": "", "md5": ""})
    for block in range(3):
        bring(landing, block)

    assert set(landing.fingerprint().checksums) == {"crc32", "sha256"}
    landing.close()


def test_name_that_the_file_system_confuses_is_refused(begin: Begin, tmp_path: Path) -> None:
    """As on file systems that ignore case; the other file stays unchanged."""
    (tmp_path / "m").write_bytes(b"another's")

    with pytest.raises(UnsafeNameError, match="keep 'm' apart"):
        begin(tmp_path)
    assert (tmp_path / "m").read_bytes() == b"another's"


def test_part_file_does_not_follow_a_symlink(begin: Begin, tmp_path: Path) -> None:
    """Not even at the path of a resumed file."""
    first = begin(tmp_path)
    bring(first, 0)
    first.close()
    (tmp_path / "m").unlink()
    (tmp_path / "target").write_bytes(b"precious")
    (tmp_path / "m").symlink_to("target")

    with pytest.raises(DestinationError):
        begin(tmp_path)
    assert (tmp_path / "target").read_bytes() == b"precious"


def test_write_to_a_closed_file_fails(begin: Begin, tmp_path: Path) -> None:
    """A late thread must not write into a file that reuses the descriptor."""
    landing = begin(tmp_path)
    landing.close()
    landing.close()

    with pytest.raises(DestinationError):
        landing.write(memoryview(b"late"), 0)


def test_full_disk_is_noticed_before_the_first_byte(begin: Begin, tmp_path: Path, tmpfs: Callable[..., Path]) -> None:
    """Before the first request for content."""
    small = tmpfs("small", "size=1m")

    with pytest.raises(DestinationError, match="No space left"):
        begin(small)


def test_write_error_reported_at_close_is_raised(begin: Begin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Network file systems report an exceeded quota at close."""
    landing = begin(tmp_path)
    close = os.close

    def fail(fd: int) -> None:
        close(fd)
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    monkeypatch.setattr(os, "close", fail)
    with pytest.raises(DestinationError, match="quota"):
        landing.close()
    monkeypatch.undo()
