"""Checksums: correct, combined without a second read, compared separately."""

import hashlib
import random
import zlib

import pytest

from modelfetch import checksums
from modelfetch.checksums import Fingerprint, InOrderDigests
from modelfetch.errors import MismatchError
from testkit.file_tree import random_bytes

KINDS = ["crc32", "crc32c", "crc64nvme"]


@pytest.mark.parametrize(
    ("name", "check"), [("crc32", "cbf43926"), ("crc32c", "e3069283"), ("crc64nvme", "ae8b14860a799888")]
)
def test_crcs_have_the_check_value_of_the_catalogue(name: str, check: str) -> None:
    """CRC of the digits 1 to 9: https://reveng.sourceforge.io/crc-catalogue/."""
    assert checksums.format_crc(name, checksums.update_crc(name, b"123456789")) == check
    assert (
        checksums.format_crc(
            name, checksums.update_crc(name, memoryview(b"56789"), checksums.update_crc(name, b"1234"))
        )
        == check
    )


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("seed", range(5))
def test_combined_crc_of_parts_equals_the_crc_of_the_whole(name: str, seed: int) -> None:
    """Any division into parts gives the same CRC, empty parts included."""
    data = random_bytes(100_000, seed)
    cuts = sorted(random.Random(seed).choices(range(len(data) + 1), k=8))
    pieces = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]

    parts = [(checksums.update_crc(name, piece), len(piece)) for piece in pieces]

    assert checksums.combine_crcs(name, parts) == checksums.update_crc(name, data)


@pytest.mark.parametrize("name", KINDS)
def test_crc_of_no_bytes_is_zero(name: str) -> None:
    """The stores state zero for empty objects."""
    assert checksums.combine_crcs(name, []) == checksums.update_crc(name, b"") == 0
    assert set(checksums.format_crc(name, 0)) == {"0"}


def test_crc32_equals_the_crc_of_zlib() -> None:
    """Our CRC32 is the common variant."""
    assert checksums.update_crc("crc32", b"model") == zlib.crc32(b"model")


@pytest.mark.parametrize(
    ("expected", "crc", "in_order"),
    [
        ([], "crc64nvme", ["sha256"]),
        (["crc32"], "crc32", ["sha256"]),
        (["crc32c", "md5"], "crc32c", ["sha256"]),
        (["crc32", "crc32c", "crc64nvme"], "crc64nvme", ["sha256"]),
        (["sha256", "md5"], "crc64nvme", ["sha256"]),
        (["md5"], "crc64nvme", ["md5", "sha256"]),
        (["sha1", "md5"], "crc64nvme", ["sha1", "sha256"]),
    ],
)
def test_weak_digests_are_computed_only_without_a_stronger_checksum(
    expected: list[str], crc: str, in_order: list[str]
) -> None:
    """sha256 always; md5 and sha1 cost CPU time, and are computed only as a last resort."""
    known = dict.fromkeys(expected, "")
    digests = InOrderDigests(known)
    digests.update(b"mod")
    digests.update(memoryview(b"el"))

    assert checksums.choose_crc(known) == crc
    assert digests.hexdigests() == {name: hashlib.new(name, b"model").hexdigest() for name in in_order}


def test_comparison_returns_the_names_of_the_checks() -> None:
    """Only checksums known to both sides are compared."""
    received = Fingerprint(5, {"sha256": "s", "crc32c": "c"})

    assert checksums.compare_checksums("m", received, size=5, expected={"crc32c": "c", "md5": "m"}) == (
        "size",
        "crc32c",
    )
    assert checksums.compare_checksums("m", received, size=None, expected={}) == ()


def test_mismatch_lists_every_difference_with_both_values() -> None:
    """The message does not stop at the first difference."""
    received = Fingerprint(4, {"sha256": "s0", "crc32c": "c0", "md5": "same"})

    with pytest.raises(MismatchError) as caught:
        checksums.compare_checksums(
            "b/m.bin", received, size=5, expected={"crc32c": "c1", "sha256": "s1", "md5": "same"}
        )

    for message in ("b/m.bin", "expected 5 bytes, got 4", "crc32c: expected c1, got c0", "sha256: expected s1, got s0"):
        assert message in caught.value.message
    assert "md5" not in caught.value.message
    assert caught.value.code == 65


def test_pin_may_match_any_form_of_the_model() -> None:
    """The stored or the decompressed form may match; otherwise the message has every value."""
    checksums.check_pin("m", "b", ["a", "b"])

    with pytest.raises(MismatchError, match="expected c, got a or b"):
        checksums.check_pin("m", "c", ["a", "b"])
