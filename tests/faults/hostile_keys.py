"""Hostile keys, listings and file names."""

import os
from collections.abc import Iterator

from testkit.scripted_server import (
    ListedObject,
    StoreResponders,
    gcs_listing,
    gcs_page,
    gcs_store,
    respond_always,
    s3_listing,
    s3_page,
    s3_store,
    serve_objects,
)
from tests.faults.hostile_trial import HostileCase

GOOD = {"good": b"x"}
DEEP = "/".join(["d"] * 511)  # with prefix and name, the longest key of S3

# The last part of a key, and the reason of the refusal.
BAD_NAMES = [
    *(("..", "'..'"), ("../../evil", "'..'"), ("a/../evil", "'..'"), ("a/..", "'..'"), (".", "'.'"), ("./a", "'.'")),
    *(("a/./b", "'.'"), ("/etc/evil", "absolute"), ("//evil", "absolute"), ("a//b", "empty"), ("a\\b", "backslash")),
    *(("..\\evil", "backslash"), ("a\0b", "control"), ("a\nb", "control"), ("a\x1b[2Jb", "control")),
    *(("a\x7f", "control"), ("a\x85", "control"), ("a\x9b2J", "control"), ("d/", "empty"), ("x" * 256, "255 bytes")),
    *(("é" * 128, "255 bytes"), ("/".join(["d" * 250] * 17), "4095 bytes"), ("/".join("d" * 513), "nested")),
]
# Two keys in conflict, and the reason.
CLASHES = [
    *(("a", "a/b", "is a file"), ("a/b", "a", "is a file"), ("a/b/c", "a", "is a file"), ("a", "a", "twice")),
    ("a/b", "a/b", "twice"),
]
# Odd, but valid file names.
GOOD_NAMES = [
    *(
        "\u202egpj.exe",
        "a\u200bb",
        "é",
        "e\u0301",
        "README",
        "readme",
        "-rf",
        "~",
        "a b",
        "%2e%2e",
        "..a",
        "a..",
        "...",
    ),
    *("x" * 255, f"{DEEP}/e", "C:evil", "sub/x.modelfetch", "a#1", "a?b", "*", "con", "$(x)"),
]

RESERVED_NAMES = (".modelfetch-receipt", "sub/.modelfetch-x", "sub/.modelfetch/x", "good.modelfetch.json")  # left out


def make_cases() -> Iterator[HostileCase]:
    """Yield every case of hostile keys."""
    for scheme, store in (("s3", s3_store), ("gs", gcs_store)):
        good = ListedObject("p/good")
        for name, flaw in BAD_NAMES:
            yield HostileCase(
                "key that must not be written",
                repr(name)[:40],
                scheme,
                store(good, ListedObject(f"p/{name}")),
                message_part=flaw,
            )
        for one, other, flaw in CLASHES:
            items = store(good, ListedObject(f"p/{one}"), ListedObject(f"p/{other}"))
            yield HostileCase("keys that clash", f"{one!r} and {other!r}", scheme, items, message_part=flaw)
        model = {**GOOD, **{name: name.encode() for name in GOOD_NAMES}}
        items = store(
            *(ListedObject(f"p/{name}", data) for name, data in model.items()),
            *(ListedObject(f"p/{name}") for name in RESERVED_NAMES),
        )
        yield HostileCase("odd names, each of one file", "all at once", scheme, items, (0,), model=model)
        yield from _listing_cases(scheme, store)
    yield from _encoding_cases()
    yield from _page_cases()
    yield from _local_file_cases()


def _listing_cases(scheme: str, store: StoreResponders) -> Iterator[HostileCase]:
    good = ListedObject("p/good")
    for key in ("q/evil", "evil", "p", "pp/a", "../p/x"):
        fault = "key that was not asked for"
        yield HostileCase(fault, repr(key), scheme, store(good, ListedObject(key)), message_part=repr(key))
    for size in (-1, "lots", "", None, "1e9", "9" * 5000):
        yield HostileCase(
            "size that is none", repr(size)[:20], scheme, store(good, ListedObject("p/a", size=size)), (69,)
        )
    for size in (2**63, 2**70):
        yield HostileCase(
            "size beyond all disks", str(size), scheme, store(good, ListedObject("p/a", size=size)), (73,)
        )
    for size in (0, 1, 3):
        items = store(good, ListedObject("p/a", b"yy", size=size))
        yield HostileCase("object of another size than listed", f"{size} for 2", scheme, items, (65, 75))
    for key in ("p//", "p/d//", "p/../", "p/./"):
        yield HostileCase("marker that names no directory", repr(key), scheme, store(good, ListedObject(key, b"")))
    yield HostileCase("marker with content", "'p/'", scheme, store(good, ListedObject("p/")), message_part="'p/'")
    yield HostileCase("entry without a key", "no key", scheme, store(good, ListedObject(None)), (69,))
    yield HostileCase(
        "entry without an ETag",
        "no ETag",
        scheme,
        store(good, ListedObject("p/a", etag=None)),
        (0,),
        model={**GOOD, "a": b"x"},
    )
    excluded = store(good, ListedObject("p/../../evil"), ListedObject("p/a//b"))
    args = ("--exclude", "*evil*", "--exclude", "*//*")
    yield HostileCase("hostile key, excluded", "as the hint says", scheme, excluded, (0,), model=GOOD, args=args)


def _encoding_cases() -> Iterator[HostileCase]:
    """Yield cases that only a single store's encoding can express."""
    fault = "key that is no text"
    good = ListedObject("p/good")
    yield HostileCase(
        fault, "lone surrogate in JSON", "gs", gcs_store(good, ListedObject("p/\ud800")), message_part="UTF-8"
    )
    yield HostileCase(fault, "%FF", "s3", s3_store(good, ListedObject("p/\udcff")), (65, 66))
    for key in ("p/../m", "./m", "a/.."):
        single = [serve_objects("/b/", [ListedObject(key), ListedObject("m", b"other")])]
        yield HostileCase("object behind a '..'", repr(key), "s3", single, (65,), source=key)


def _page_cases() -> Iterator[HostileCase]:
    fault, good = "listing without an end", [ListedObject("p/good")]
    ways: dict[str, str] = {
        "no token": "<IsTruncated>true</IsTruncated>",
        "same token": "<IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>",
    }
    for name, more in ways.items():
        yield HostileCase(fault, name, "s3", [s3_listing(respond_always(s3_page(good, more)))], (69,))
    again = gcs_listing(respond_always(gcs_page(good, nextPageToken="t")))
    yield HostileCase(fault, "same token", "gs", [again], (69,))


def _local_file_cases() -> Iterator[HostileCase]:
    """Yield names that the local disk allows and a model forbids."""
    for name, flaw in (
        ("a\nb", "control"),
        ("a\\b", "backslash"),
        ("a\x1b[2J", "control"),
        (os.fsdecode(b"\xff"), "UTF-8"),
    ):
        yield HostileCase(
            "local name that must not be copied",
            repr(name),
            "file",
            {"p/good": b"x", f"p/{name}": b"y"},
            message_part=flaw,
        )
    odd = {name: name.encode() for name in GOOD_NAMES if name not in ("x" * 255, f"{DEEP}/e")}
    yield HostileCase(
        "odd local names", "all at once", "file", {f"p/{name}": data for name, data in odd.items()}, (0,), model=odd
    )
