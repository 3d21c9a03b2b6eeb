"""Responses of S3 and Google Cloud Storage as files for nginx: listings, metadata, maps of headers."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from bench.data import StoredObject, encode_base64

BUCKET = "bench"
GENERATION = "1767225600000000"
MODIFIED = 1767225600  # 2026-01-01T00:00:00Z: of every object
_PAGE = 1000
_DATE = "2026-01-01T00:00:00.000Z"


def write_responses(directory: Path, objects: Sequence[StoredObject], endpoint: str) -> None:
    """Write all responses below `directory`, with the maps included by nginx."""
    (directory / "missing.xml").write_text("<Error><Code>NoSuchKey</Code><Message>There is none.</Message></Error>")
    (directory / "missing.json").write_text(json.dumps({"error": {"code": 404, "message": "There is none."}}))
    (directory / "bucket.json").write_text(json.dumps({"kind": "storage#bucket", "name": BUCKET, "id": BUCKET}))
    for each in objects:
        place = directory / "metadata" / f"{each.key}.json"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(json.dumps(_object_metadata(each, endpoint)))
    _write_listing(directory / "listing-none", "", [], endpoint)
    folders = {}
    for number, (prefix, found) in enumerate(_list_prefixes(objects)):
        folders[prefix] = f"listing-{number}"
        _write_listing(directory / folders[prefix], prefix, found, endpoint)
    (directory / "maps.conf").write_text("".join(_header_maps(objects, folders)))


def _list_prefixes(objects: Sequence[StoredObject]) -> Iterator[tuple[str, list[StoredObject]]]:
    """Yield every prefix requested by a tool: folders, with and without the slash, and single objects."""
    yield "", list(objects)
    for folder in sorted({each.key.split("/")[0] for each in objects if "/" in each.key}):
        for prefix in (folder, f"{folder}/"):
            yield prefix, [each for each in objects if each.key.startswith(prefix)]
    for each in objects:
        if "/" not in each.key:
            yield each.key, [each]


def _write_listing(folder: Path, prefix: str, objects: Sequence[StoredObject], endpoint: str) -> None:
    folder.mkdir()
    for start in range(0, max(1, len(objects)), _PAGE):
        page = start // _PAGE + 1
        more = f"page-{page + 1}" if start + _PAGE < len(objects) else ""
        found = objects[start : start + _PAGE]
        (folder / f"{page}.xml").write_text(_listing_xml(prefix, found, more))
        items = [_object_metadata(each, endpoint) for each in found]
        goes_on = {"nextPageToken": more} if more else {}
        (folder / f"{page}.json").write_text(json.dumps({"kind": "storage#objects", "items": items, **goes_on}))


def _listing_xml(prefix: str, objects: Sequence[StoredObject], more: str) -> str:
    """Return a page for both versions of ListObjects: clients ignore the other version's fields."""
    contents = "".join(
        f"<Contents><Key>{each.key}</Key><LastModified>{_DATE}</LastModified><ETag>&quot;{each.etag}&quot;</ETag>"
        "<ChecksumAlgorithm>CRC64NVME</ChecksumAlgorithm><ChecksumType>FULL_OBJECT</ChecksumType>"
        f"<Size>{each.size}</Size><StorageClass>STANDARD</StorageClass></Contents>"
        for each in objects
    )
    goes_on = f"<NextContinuationToken>{more}</NextContinuationToken><NextMarker>{more}</NextMarker>" if more else ""
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        f"<Name>{BUCKET}</Name><Prefix>{prefix}</Prefix><MaxKeys>{_PAGE}</MaxKeys><KeyCount>{len(objects)}</KeyCount>"
        f"<IsTruncated>{'true' if more else 'false'}</IsTruncated>{goes_on}{contents}</ListBucketResult>"
    )


def _object_metadata(each: StoredObject, endpoint: str) -> dict[str, Any]:
    path = f"b/{BUCKET}/o/{quote(each.key, safe='')}"
    found = {
        "kind": "storage#object",
        "id": f"{BUCKET}/{each.key}/{GENERATION}",
        "selfLink": f"{endpoint}/storage/v1/{path}",
        "mediaLink": f"{endpoint}/download/storage/v1/{path}?generation={GENERATION}&alt=media",
        "name": each.key,
        "bucket": BUCKET,
        "generation": GENERATION,
        "metageneration": "1",
        "contentType": "application/octet-stream",
        "storageClass": "STANDARD",
        "size": str(each.size),
        "crc32c": encode_base64(each.crc32c),
        "etag": "CAE=",
        "timeCreated": _DATE,
        "updated": _DATE,
    }
    return {**found, "md5Hash": each.gcs_md5} if each.gcs_md5 else found


def _header_maps(objects: Sequence[StoredObject], folders: dict[str, str]) -> Iterator[str]:
    """Yield nginx maps: headers by object, and listings by prefix as sent, escaped or not."""
    yield from _header_map("$object $etag", objects, lambda each: f'"{each.etag}"')
    yield from _header_map("$object $crc64nvme", objects, lambda each: encode_base64(each.crc64nvme))
    yield from _header_map("$object $goog_hash", objects, _hash_header)
    yield "map $arg_prefix $listing {\n  default listing-none;\n"
    for prefix, folder in folders.items():
        for spelt in sorted({prefix, prefix.replace("/", "%2F")}):
            yield f'  "{spelt}" {folder};\n'
    yield "}\n"


def _hash_header(each: StoredObject) -> str:
    return f"crc32c={encode_base64(each.crc32c)}" + (f",md5={each.gcs_md5}" if each.gcs_md5 else "")


def _header_map(names: str, objects: Sequence[StoredObject], value: Callable[[StoredObject], str]) -> Iterator[str]:
    source, target = names.split()
    yield f"map {source} {target} {{\n"
    for each in objects:
        yield f"  '{each.key}' '{value(each)}';\n"
    yield "}\n"
