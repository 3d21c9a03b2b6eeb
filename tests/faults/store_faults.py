"""Faults of the store: what it says of its objects, and what happens to them while they are read."""

from collections.abc import Callable
from functools import partial
from typing import Any

from testkit.faults import Request
from testkit.stores import S3Bucket
from tests.faults.fault import (
    CHANGED,
    HTML,
    MISMATCH,
    NOT_FOUND,
    ONCE,
    REFUSED,
    RIGHT,
    TRANSIENT,
    Fault,
    bodies,
)
from tests.faults.network_route import Way
from tests.faults.stored_models import Model, content, delete, overwrite

ANYBODY = {"MODELFETCH_ANONYMOUS": "true"}
CHECKSUMS = {f"x-amz-checksum-{name}": "AAAAAA==" for name in ("crc32", "crc32c")} | {"x-goog-hash": "crc32c=AAAAAA=="}
EXPIRED = b"<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>"


def _small_pages(request: Request) -> None:
    """Ask for ten entries only. S3's signature covers the query, so that this is for anybody's requests."""
    request.query += "&max-keys=10" if "list-type" in request.query else "&maxResults=10"


def _first_page_again(request: Request) -> None:
    """Ask for the first page, whatever was asked for."""
    words = [word for word in request.query.split("&") if not word.lower().startswith(("continuation", "pagetoken"))]
    request.query = "&".join(words)
    _small_pages(request)


def _pages(way: Way, times: int | None = 1, **second: Any) -> None:
    """Have the listing come in pages of ten, with a fault at the second."""
    if isinstance(way.model.store, S3Bucket):
        way.model.store.let_anybody_read()
    way.questions(rewrite=_small_pages)
    way.questions(**{"rewrite": _small_pages, "times": times, **second})
    way.questions(rewrite=_small_pages, times=None)


def _paged(name: str, *ends: str, **second: Any) -> Fault:
    return Fault(
        f"listing: second page {name}",
        partial(_pages, **second),
        ends or (RIGHT,),
        ("directory",),
        env={**ANYBODY, **ONCE},
        alters=True,
    )


def _add(model: Model, key: str) -> None:
    """A file more."""
    model.put(f"dir/{key}", b"more")
    model.editions.append({**model.editions[-1], key: b"more"})


def _take(model: Model, key: str) -> None:
    """A file less."""
    model.delete(f"dir/{key}")
    model.editions.append({name: data for name, data in model.editions[-1].items() if name != key})


def _replace(model: Model, key: str) -> None:
    """A file of the same size with other bytes."""
    model.put(f"dir/{key}", content("directory", 1)[key])
    model.editions.append({**model.editions[-1], key: content("directory", 1)[key]})


def _replace_all(model: Model) -> None:
    """Another edition of every file."""
    model.put_all(1)
    model.editions.append(content("directory", 1))


CHANGES: tuple[Callable[[Model], None], ...] = (
    lambda model: _add(model, "00/new"),  # where the first page was
    lambda model: _add(model, "99/new"),
    lambda model: _take(model, "03/file"),
    lambda model: _take(model, "40/file"),
    lambda model: _replace(model, "03/file"),
    lambda model: _replace(model, "40/file"),
    _replace_all,
)


def _change_between_pages(way: Way) -> None:
    change = CHANGES[way.nth]
    _pages(way, before=lambda: change(way.model))


def _sizes(body: bytes) -> bytes:
    """A listing in which a size is wrong: S3's is in XML, GCS's in JSON, and so is what it says of one object."""
    return body.replace(b"<Size>1", b"<Size>2", 1).replace(b'"size":"', b'"size":"1', 1)


def _checksums(body: bytes) -> bytes:
    """GCS's metadata with checksums of nothing."""
    return body.replace(b'"crc32c":"', b'"crc32c":"AAAAAA==","x":"').replace(b'"md5Hash":"', b'"y":"')


def _wrong_checksum(way: Way) -> None:
    if way.model.store.scheme == "gs":
        way.questions(times=None, edit=_checksums)
    elif way.model.shape == "directory":
        way.bodies(times=None, headers=CHECKSUMS)
    else:
        way.questions(times=None, headers=CHECKSUMS)


def _wrong_size(way: Way) -> None:
    if way.model.store.scheme == "s3" and way.model.shape != "directory":
        way.questions(times=None, length_off=-1000)
    else:
        way.questions(times=None, edit=_sizes)


def _rotate(way: Way) -> None:
    """The credentials in a file are replaced while bytes come; from then on the old ones are refused."""
    assert isinstance(way.model.store, S3Bucket)
    server, file = way.model.store.server, way.work / "credentials"
    old, new = server.temporary_keys(), server.temporary_keys()
    _write_keys(way, old)

    def revoke() -> None:
        _write_keys(way, new)
        way.proxy.add(query=f"X-Amz-Credential={old['AccessKeyId']}", status=403, body=EXPIRED, times=None)

    way.env = {
        "AWS_SHARED_CREDENTIALS_FILE": str(file),
        "AWS_ACCESS_KEY_ID": None,
        "AWS_SECRET_ACCESS_KEY": None,
    }
    way.bodies(cut_after=60_000, before=revoke)


def _write_keys(way: Way, keys: dict[str, str]) -> None:
    (way.work / "credentials.new").write_text(
        f"[default]\naws_access_key_id = {keys['AccessKeyId']}\naws_secret_access_key = {keys['SecretAccessKey']}\n"
        f"aws_session_token = {keys['SessionToken']}\n"
    )
    (way.work / "credentials.new").rename(way.work / "credentials")


def _decompressed(way: Way, times: int | None) -> None:
    way.bodies(times=times, rewrite=lambda request: request.headers.pop("accept-encoding"))


def _transcoded(name: str, lay: Callable[[Way], object], *ends: str) -> Fault:
    return Fault(f"gzip-transcoded object{name}", lay, ends or (RIGHT,), stores=("gcs",), alters=True, packed=True)


CHANGING = (
    Fault("overwritten midway", lambda way: way.midway(overwrite), alters=True),
    Fault(
        "overwritten before the first byte", lambda way: way.bodies(before=lambda: overwrite(way.model)), alters=True
    ),
    Fault("deleted midway", lambda way: way.midway(delete), (NOT_FOUND,), alters=True),
    Fault(
        "deleted before the first byte",
        lambda way: way.bodies(before=lambda: delete(way.model)),
        (NOT_FOUND,),
        alters=True,
    ),
    Fault(
        "listing changes between pages",
        _change_between_pages,
        (RIGHT, NOT_FOUND),
        ("directory",),
        variants=lambda _: len(CHANGES),
        env=ANYBODY,
        alters=True,
    ),
    Fault("credentials replaced midway", _rotate, stores=("s3",)),
)
LISTINGS = (
    _paged("reset", reset=True),
    _paged("503", status=503),
    _paged("empty with 200", REFUSED, TRANSIENT, status=200),
    _paged("an error page with 200", REFUSED, TRANSIENT, **HTML),
    _paged("cut in half", RIGHT, REFUSED, TRANSIENT, edit=lambda body: body[: len(body) // 2]),
    _paged("is the first one, always", REFUSED, times=None, rewrite=_first_page_again),
)
SAID = (
    Fault("store's checksum wrong", _wrong_checksum, (MISMATCH,), env=ONCE),
    Fault("store's size wrong", _wrong_size, (CHANGED, TRANSIENT, MISMATCH), env=ONCE),
    bodies("x-goog-hash of the reply wrong", headers={"x-goog-hash": "crc32c=AAAAAA=="}),
)
TRANSCODED = (
    _transcoded("", lambda _: None),
    _transcoded(", body cut short", lambda way: way.bodies(times=2, cut_after=60_000)),
    _transcoded(", decompressed on the way", lambda way: _decompressed(way, 1)),
    _transcoded(", decompressed on the way, always", lambda way: _decompressed(way, None), MISMATCH, TRANSIENT),
)
STORED = (*CHANGING, *LISTINGS, *SAID, *TRANSCODED)
