"""Listings are checked entry by entry and page by page, on S3 and GCS alike."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import pytest

from modelfetch.errors import BudgetError, ModelfetchError, NotFoundError, RefusedError, UnsafeNameError
from modelfetch.sources import Listing, RemoteObject, open_source, parse_uri
from modelfetch.sources import listing as listings
from modelfetch.sources.gcs.spec import GCSOptions
from modelfetch.sources.listing import ListingBuilder
from modelfetch.sources.s3.spec import S3Options
from testkit.options import anonymous_options
from testkit.scripted_server import (
    ListedObject,
    ScriptedServer,
    ServerRequest,
    ServerResponse,
    gcs_listing,
    gcs_page,
    respond_always,
    s3_listing,
    s3_page,
)

Pages = Callable[[ServerRequest], tuple[Iterable[ListedObject], object]]


class Kind:
    """Kind of store: makes the pages and opens the source."""

    def __init__(self, scripted_server: ScriptedServer, scheme: str) -> None:
        self.scripted_server = scripted_server
        self.scheme = scheme
        self.access = anonymous_options(scheme, scripted_server.url)

    def find(self, pages: Pages, **access: Any) -> Listing:
        """List `p/`, of which each page comes with the token of the next (None: the last)."""

        def s3(asked: ServerRequest) -> ServerResponse:
            items, token = pages(asked)
            said = f"<NextContinuationToken>{token}</NextContinuationToken>" if token else ""
            return s3_page(items, f"<IsTruncated>{str(token is not None).lower()}</IsTruncated>{said}")

        def gcs(asked: ServerRequest) -> ServerResponse:
            items, token = pages(asked)
            return gcs_page(items, **({} if token is None else {"nextPageToken": token}))

        self.scripted_server.respond_with(s3_listing(s3), gcs_listing(gcs))
        return open_source(parse_uri(f"{self.scheme}://b/p/"), replace(self.access, **access)).resolve()


@pytest.fixture(params=["s3", "gs"])
def kind(request: pytest.FixtureRequest, scripted_server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> Kind:
    """Return S3 first, then GCS."""
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    return Kind(scripted_server, request.param)


def one_page(*items: ListedObject) -> Pages:
    """A listing of a single page."""
    return lambda _: (items, None)


def token(asked: ServerRequest) -> int:
    """Return the number of the requested page, from 0."""
    return int(asked.query.get("continuation-token") or asked.query.get("pageToken") or 0)


def test_listing_separates_files_and_empty_folders(kind: Kind) -> None:
    """The marker of the listed directory itself is neither file nor folder."""
    listed = (
        ListedObject("p/", b""),
        ListedObject("p/a", b"xy"),
        ListedObject("p/d/", b""),
        ListedObject("p/empty", b""),
    )

    found = kind.find(one_page(*listed))

    assert [(o.key, o.path, o.size) for o in found.objects] == [("p/a", "a", 2), ("p/empty", "empty", 0)]
    assert (found.folders, found.directory) == (("d",), True)


def test_every_page_of_a_listing_is_requested(kind: Kind) -> None:
    """Also after an empty page: both stores send empty pages."""
    found = kind.find(
        lambda asked: ((ListedObject(f"p/{token(asked)}"),) * (token(asked) % 2), [1, 2, 3, None][token(asked)])
    )

    assert [o.path for o in found.objects] == ["1", "3"]


def test_listing_of_folders_alone_is_not_found(kind: Kind) -> None:
    """A listing without an object holds no model."""
    with pytest.raises(NotFoundError):
        kind.find(one_page(ListedObject("p/", b""), ListedObject("p/d/", b"")))


@pytest.mark.parametrize("key", ["q/a", "p", "pp/a", "../p/a", "/p/a", "P/a", "q/../p/a"])
def test_key_outside_the_prefix_is_refused(kind: Kind, key: str) -> None:
    """The server is hostile, or ignores the prefix."""
    with pytest.raises(UnsafeNameError) as caught:
        kind.find(one_page(ListedObject("p/a"), ListedObject(key)))

    assert repr(key) in caught.value.message


@pytest.mark.parametrize("key", ["p/d//", "p//", "p/d///"])
def test_folder_marker_with_two_slashes_is_refused(kind: Kind, key: str) -> None:
    """The empty segment stays in the key, and the plan refuses the key."""
    assert kind.find(one_page(ListedObject("p/a"), ListedObject(key, b""))).folders == (key.removeprefix("p/")[:-1],)


def test_prefix_object_with_content_is_refused(kind: Kind) -> None:
    """The content has no path below the directory."""
    with pytest.raises(UnsafeNameError, match=r"'p/' has 1 bytes"):
        kind.find(one_page(ListedObject("p/a"), ListedObject("p/")))


def test_folder_marker_with_content_is_passed_to_the_plan(kind: Kind) -> None:
    """The marker can be excluded by a glob."""
    assert [o.path for o in kind.find(one_page(ListedObject("p/a"), ListedObject("p/d/"))).objects] == ["a", "d/"]


@pytest.mark.parametrize("size", [None, -1, "", "lots", "1.5", "0x10", "9" * 5000, "1e3"])
def test_entry_with_an_invalid_size_is_refused(kind: Kind, size: object) -> None:
    """Negative numbers, texts and missing fields alike."""
    with pytest.raises(RefusedError, match="does not answer as"):
        kind.find(one_page(ListedObject("p/a", size=size)))


def test_entry_without_a_key_is_refused(kind: Kind) -> None:
    """An entry without a key names no object."""
    with pytest.raises(RefusedError, match="does not answer as"):
        kind.find(one_page(ListedObject("p/a"), ListedObject(None)))


def test_huge_size_is_accepted_by_the_listing(kind: Kind) -> None:
    """Lack of room is noticed later, before the download."""
    assert kind.find(one_page(ListedObject("p/a", size=2**70))).objects[0].size == 2**70


@pytest.mark.parametrize("circle", [[1, 1], [1, 2, 1], [1, 2, 3, 4, 2]])
@pytest.mark.parametrize("items", [(), (ListedObject("p/a"),)], ids=["empty", "full"])
def test_repeated_continuation_token_is_refused(kind: Kind, circle: list[int], items: tuple[ListedObject, ...]) -> None:
    """After one page or several, with objects or without."""
    asked_for = iter(circle)

    with pytest.raises(RefusedError, match="goes round in a circle"):
        kind.find(lambda _: (items, next(asked_for)))

    assert next(asked_for, None) is None


def test_endless_empty_pages_are_refused(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    """Although each page has a token of its own."""
    monkeypatch.setattr(listings, "MAX_EMPTY_PAGES", 20)

    with pytest.raises(RefusedError, match="has no end"):
        kind.find(lambda asked: ((), token(asked) + 1))

    assert len(kind.scripted_server.requests) == 21


def test_endless_objects_exceed_the_budget(kind: Kind) -> None:
    """Before the objects fill the memory; the hint names the limit."""
    with pytest.raises(BudgetError, match="more than 100") as caught:
        kind.find(
            lambda asked: ([ListedObject(f"p/{token(asked)}-{n}") for n in range(30)], token(asked) + 1), max_listed=100
        )

    assert len(kind.scripted_server.requests) == 4
    assert "MODELFETCH_MAX_FILES" in caught.value.hint


def test_endless_folder_markers_exceed_the_budget(kind: Kind) -> None:
    """Folders take memory like objects do."""
    with pytest.raises(BudgetError):
        kind.find(one_page(*(ListedObject(f"p/{n}/", b"") for n in range(101))), max_listed=100)


def test_truncated_page_without_a_token_is_refused(
    scripted_server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S3 announces more objects without a token: the rest of the model would be missing."""
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    source = open_source(parse_uri("s3://b/p/"), S3Options(anonymous=True, endpoint=scripted_server.url))
    for said in ("", "<NextContinuationToken/>", "<NextContinuationToken></NextContinuationToken>"):
        page = s3_page([ListedObject("p/a")], f"<IsTruncated>true</IsTruncated>{said}")
        scripted_server.respond_with(s3_listing(respond_always(page)))
        with pytest.raises(RefusedError, match="breaks off"):
            source.resolve()


def test_empty_token_ends_the_listing(scripted_server: ScriptedServer) -> None:
    """As in https://google.aip.dev/158; the SDK would start the listing again."""
    scripted_server.respond_with(gcs_listing(respond_always(gcs_page([ListedObject("p/a")], nextPageToken=""))))

    found = open_source(parse_uri("gs://b/p/"), GCSOptions(emulator=scripted_server.url)).resolve()

    assert [o.path for o in found.objects] == ["a"]


@pytest.mark.parametrize("token", [0, False, [], {}])
def test_invalid_token_is_refused(scripted_server: ScriptedServer, token: object) -> None:
    """The rest of the model would be missing."""
    page = gcs_page([ListedObject("p/a")], nextPageToken=token)
    scripted_server.respond_with(
        lambda asked: None if len(scripted_server.requests) > 3 else gcs_listing(respond_always(page))(asked)
    )

    with pytest.raises(RefusedError, match="breaks off"):
        open_source(parse_uri("gs://b/p/"), GCSOptions(emulator=scripted_server.url)).resolve()


NO_LISTING = [
    *(
        b"[]",
        b"null",
        b"5",
        b'"x"',
        b'{"items": "abc"}',
        b'{"items": {"a": 1}}',
        b'{"items": [1]}',
        b'{"items": [null]}',
    ),
    *(b'{"items": [{"name": {}}]}', b'{"items": [{"name": 1, "size": "1"}]}', b"[" * 100_000),
    b'{"items": [{"name": "p/a", "size": "1", "crc32c": 5}]}',
]


@pytest.mark.parametrize("body", NO_LISTING)
def test_json_of_another_shape_is_refused(scripted_server: ScriptedServer, body: bytes) -> None:
    """At every depth of nesting."""
    scripted_server.respond_with(lambda _: ServerResponse(headers=(("Content-Type", "application/json"),), body=body))

    with pytest.raises(RefusedError, match="does not answer as Google"):
        open_source(parse_uri("gs://b/p/"), GCSOptions(emulator=scripted_server.url)).resolve()


def test_builder_returns_the_added_entries() -> None:
    """None, as long as no object was added."""
    listing = ListingBuilder("p/", 10)
    listing.add_entry("p/d/", 0, lambda path: RemoteObject(path, path, 0, ""))
    assert listing.build_listing() is None
    with pytest.raises(ModelfetchError):
        listing.end_page("", more=True)
    with pytest.raises(ValueError, match="bytes"):
        listing.add_entry("p/a", -1, lambda path: RemoteObject(path, path, -1, ""))
