"""Store faults: wrong metadata, and objects that change while a pull reads."""

from collections.abc import Callable
from functools import partial
from typing import Any

from testkit.fault_rules import Request
from testkit.stores import S3Bucket
from tests.faults.fault import (
    CHANGED,
    HTML_RESPONSE,
    MISMATCH,
    NOT_FOUND,
    ONE_RETRY,
    REFUSED,
    RIGHT,
    TRANSIENT,
    Fault,
    spoil_downloads,
)
from tests.faults.network_route import NetworkRoute
from tests.faults.stored_models import StoredModel, delete_victim, model_files, overwrite_victim

ANONYMOUS = {"MODELFETCH_ANONYMOUS": "true"}
WRONG_CHECKSUMS = {f"x-amz-checksum-{name}": "AAAAAA==" for name in ("crc32", "crc32c")} | {
    "x-goog-hash": "crc32c=AAAAAA=="
}
EXPIRED_TOKEN = b"<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>"


def _request_small_pages(request: Request) -> None:
    """Request ten entries per page; only anonymous requests, as S3 signatures cover the query."""
    request.query += "&max-keys=10" if "list-type" in request.query else "&maxResults=10"


def _request_first_page(request: Request) -> None:
    """Request the first page instead of any other."""
    words = [word for word in request.query.split("&") if not word.lower().startswith(("continuation", "pagetoken"))]
    request.query = "&".join(words)
    _request_small_pages(request)


def _spoil_second_page(route: NetworkRoute, times: int | None = 1, **second: Any) -> None:
    """Split the listing into pages of ten, with a fault at the second page."""
    if isinstance(route.model.store, S3Bucket):
        route.model.store.allow_anonymous_reads()
    route.spoil_metadata(rewrite=_request_small_pages)
    route.spoil_metadata(**{"rewrite": _request_small_pages, "times": times, **second})
    route.spoil_metadata(rewrite=_request_small_pages, times=None)


def _second_page_fault(name: str, *ends: str, **second: Any) -> Fault:
    return Fault(
        f"listing: second page {name}",
        partial(_spoil_second_page, **second),
        ends or (RIGHT,),
        ("directory",),
        env={**ANONYMOUS, **ONE_RETRY},
        changes_objects=True,
    )


def _add_file(model: StoredModel, key: str) -> None:
    """Add a file to the stored model."""
    model.put_object(f"dir/{key}", b"more")
    model.editions.append({**model.editions[-1], key: b"more"})


def _remove_file(model: StoredModel, key: str) -> None:
    """Remove a file from the stored model."""
    model.delete_object(f"dir/{key}")
    model.editions.append({name: data for name, data in model.editions[-1].items() if name != key})


def _replace_file(model: StoredModel, key: str) -> None:
    """Replace a file of the stored model."""
    model.put_object(f"dir/{key}", model_files("directory", 1)[key])
    model.editions.append({**model.editions[-1], key: model_files("directory", 1)[key]})


def _replace_every_file(model: StoredModel) -> None:
    """Another edition of every file."""
    model.put_edition(1)
    model.editions.append(model_files("directory", 1))


CHANGES: tuple[Callable[[StoredModel], None], ...] = (
    lambda model: _add_file(model, "00/new"),  # on the first page
    lambda model: _add_file(model, "99/new"),
    lambda model: _remove_file(model, "03/file"),
    lambda model: _remove_file(model, "40/file"),
    lambda model: _replace_file(model, "03/file"),
    lambda model: _replace_file(model, "40/file"),
    _replace_every_file,
)


def _change_between_pages(route: NetworkRoute) -> None:
    change = CHANGES[route.variant]
    _spoil_second_page(route, before=lambda: change(route.model))


def _falsify_sizes(body: bytes) -> bytes:
    """Return a listing or GCS metadata with a wrong size: S3's is XML, GCS's is JSON."""
    return body.replace(b"<Size>1", b"<Size>2", 1).replace(b'"size":"', b'"size":"1', 1)


def _falsify_checksums(body: bytes) -> bytes:
    """Return GCS metadata with checksums of zero bytes."""
    return body.replace(b'"crc32c":"', b'"crc32c":"AAAAAA==","x":"').replace(b'"md5Hash":"', b'"y":"')


def _state_wrong_checksum(route: NetworkRoute) -> None:
    if route.model.store.scheme == "gs":
        route.spoil_metadata(times=None, edit=_falsify_checksums)
    elif route.model.shape == "directory":
        route.spoil_downloads(times=None, headers=WRONG_CHECKSUMS)
    else:
        route.spoil_metadata(times=None, headers=WRONG_CHECKSUMS)


def _state_wrong_size(route: NetworkRoute) -> None:
    if route.model.store.scheme == "s3" and route.model.shape != "directory":
        route.spoil_metadata(times=None, length_off=-1000)
    else:
        route.spoil_metadata(times=None, edit=_falsify_sizes)


def _rotate_credentials(route: NetworkRoute) -> None:
    """Replace the credentials file during a download; from then on the old credentials are refused."""
    assert isinstance(route.model.store, S3Bucket)
    server, file = route.model.store.server, route.directory / "credentials"
    old, new = server.temporary_keys(), server.temporary_keys()
    _write_credentials(route, old)

    def revoke() -> None:
        _write_credentials(route, new)
        route.proxy.add_rule(query=f"X-Amz-Credential={old['AccessKeyId']}", status=403, body=EXPIRED_TOKEN, times=None)

    route.env = {
        "AWS_SHARED_CREDENTIALS_FILE": str(file),
        "AWS_ACCESS_KEY_ID": None,
        "AWS_SECRET_ACCESS_KEY": None,
    }
    route.spoil_downloads(cut_after=60_000, before=revoke)


def _write_credentials(route: NetworkRoute, keys: dict[str, str]) -> None:
    (route.directory / "credentials.new").write_text(
        f"[default]\naws_access_key_id = {keys['AccessKeyId']}\naws_secret_access_key = {keys['SecretAccessKey']}\n"
        f"aws_session_token = {keys['SessionToken']}\n"
    )
    (route.directory / "credentials.new").rename(route.directory / "credentials")


def _decompress_in_transit(route: NetworkRoute, times: int | None) -> None:
    route.spoil_downloads(times=times, rewrite=lambda request: request.headers.pop("accept-encoding"))


def _transcoded_fault(name: str, lay: Callable[[NetworkRoute], object], *ends: str) -> Fault:
    return Fault(
        f"gzip-transcoded object{name}", lay, ends or (RIGHT,), stores=("gcs",), changes_objects=True, gzip_encoded=True
    )


CHANGING_OBJECTS = (
    Fault("overwritten midway", lambda route: route.change_midway(overwrite_victim), changes_objects=True),
    Fault(
        "overwritten before the first byte",
        lambda route: route.spoil_downloads(before=lambda: overwrite_victim(route.model)),
        changes_objects=True,
    ),
    Fault("deleted midway", lambda route: route.change_midway(delete_victim), (NOT_FOUND,), changes_objects=True),
    Fault(
        "deleted before the first byte",
        lambda route: route.spoil_downloads(before=lambda: delete_victim(route.model)),
        (NOT_FOUND,),
        changes_objects=True,
    ),
    Fault(
        "listing changes between pages",
        _change_between_pages,
        (RIGHT, NOT_FOUND),
        ("directory",),
        variants=lambda _: len(CHANGES),
        env=ANONYMOUS,
        changes_objects=True,
    ),
    Fault("credentials replaced midway", _rotate_credentials, stores=("s3",)),
)
LISTING_FAULTS = (
    _second_page_fault("reset", reset=True),
    _second_page_fault("503", status=503),
    _second_page_fault("empty with 200", REFUSED, TRANSIENT, status=200),
    _second_page_fault("an error page with 200", REFUSED, TRANSIENT, **HTML_RESPONSE),
    _second_page_fault("cut in half", RIGHT, REFUSED, TRANSIENT, edit=lambda body: body[: len(body) // 2]),
    _second_page_fault("is the first one, always", REFUSED, times=None, rewrite=_request_first_page),
)
WRONG_METADATA = (
    Fault("store's checksum wrong", _state_wrong_checksum, (MISMATCH,), env=ONE_RETRY),
    Fault("store's size wrong", _state_wrong_size, (CHANGED, TRANSIENT, MISMATCH), env=ONE_RETRY),
    spoil_downloads("x-goog-hash of the reply wrong", headers={"x-goog-hash": "crc32c=AAAAAA=="}),
)
TRANSCODED_OBJECTS = (
    _transcoded_fault("", lambda _: None),
    _transcoded_fault(", body cut short", lambda route: route.spoil_downloads(times=2, cut_after=60_000)),
    _transcoded_fault(", decompressed on the way", lambda route: _decompress_in_transit(route, 1)),
    _transcoded_fault(
        ", decompressed on the way, always", lambda route: _decompress_in_transit(route, None), MISMATCH, TRANSIENT
    ),
)
STORE_FAULTS = (*CHANGING_OBJECTS, *LISTING_FAULTS, *WRONG_METADATA, *TRANSCODED_OBJECTS)
