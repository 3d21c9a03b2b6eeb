"""What S3 and Google Cloud Storage say of the objects, as files for nginx: listings, metadata, and maps of headers."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from bench.data import Object, base64_of

BUCKET = "bench"
GENERATION = "1767225600000000"
MODIFIED = 1767225600  # 2026-01-01T00:00:00Z: of every object
_PAGE = 1000
_DATE = "2026-01-01T00:00:00.000Z"


def write(directory: Path, objects: Sequence[Object], endpoint: str) -> None:
    """Write all replies below `directory`, and the maps that nginx includes beside them."""
    (directory / "missing.xml").write_text("<Error><Code>NoSuchKey</Code><Message>There is none.</Message></Error>")
    (directory / "missing.json").write_text(json.dumps({"error": {"code": 404, "message": "There is none."}}))
    (directory / "bucket.json").write_text(json.dumps({"kind": "storage#bucket", "name": BUCKET, "id": BUCKET}))
    for each in objects:
        place = directory / "metadata" / f"{each.key}.json"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(json.dumps(_metadata(each, endpoint)))
    _list(directory / "listing-none", "", [], endpoint)
    folders = {}
    for number, (prefix, found) in enumerate(_prefixes(objects)):
        folders[prefix] = f"listing-{number}"
        _list(directory / folders[prefix], prefix, found, endpoint)
    (directory / "maps.conf").write_text("".join(_maps(objects, folders)))


def _prefixes(objects: Sequence[Object]) -> Iterator[tuple[str, list[Object]]]:
    """Every prefix that a tool asks for: folders, with and without their slash, and single objects."""
    yield "", list(objects)
    for folder in sorted({each.key.split("/")[0] for each in objects if "/" in each.key}):
        for prefix in (folder, f"{folder}/"):
            yield prefix, [each for each in objects if each.key.startswith(prefix)]
    for each in objects:
        if "/" not in each.key:
            yield each.key, [each]


def _list(folder: Path, prefix: str, objects: Sequence[Object], endpoint: str) -> None:
    folder.mkdir()
    for start in range(0, max(1, len(objects)), _PAGE):
        page = start // _PAGE + 1
        more = f"page-{page + 1}" if start + _PAGE < len(objects) else ""
        found = objects[start : start + _PAGE]
        (folder / f"{page}.xml").write_text(_xml(prefix, found, more))
        items = [_metadata(each, endpoint) for each in found]
        goes_on = {"nextPageToken": more} if more else {}
        (folder / f"{page}.json").write_text(json.dumps({"kind": "storage#objects", "items": items, **goes_on}))


def _xml(prefix: str, objects: Sequence[Object], more: str) -> str:
    """A page for both versions of ListObjects: neither minds what belongs to the other."""
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


def _metadata(each: Object, endpoint: str) -> dict[str, Any]:
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
        "crc32c": base64_of(each.crc32c),
        "etag": "CAE=",
        "timeCreated": _DATE,
        "updated": _DATE,
    }
    return {**found, "md5Hash": each.gcs_md5} if each.gcs_md5 else found


def _maps(objects: Sequence[Object], folders: dict[str, str]) -> Iterator[str]:
    """Nginx looks headers up by object, and listings by prefix as it was sent: escaped or not."""
    yield from _map("$object $etag", objects, lambda each: f'"{each.etag}"')
    yield from _map("$object $crc64nvme", objects, lambda each: base64_of(each.crc64nvme))
    yield from _map("$object $goog_hash", objects, _goog_hash)
    yield "map $arg_prefix $listing {\n  default listing-none;\n"
    for prefix, folder in folders.items():
        for spelt in sorted({prefix, prefix.replace("/", "%2F")}):
            yield f'  "{spelt}" {folder};\n'
    yield "}\n"


def _goog_hash(each: Object) -> str:
    return f"crc32c={base64_of(each.crc32c)}" + (f",md5={each.gcs_md5}" if each.gcs_md5 else "")


def _map(names: str, objects: Sequence[Object], value: Callable[[Object], str]) -> Iterator[str]:
    source, target = names.split()
    yield f"map {source} {target} {{\n"
    for each in objects:
        yield f"  '{each.key}' '{value(each)}';\n"
    yield "}\n"
