"""Seeds of each target: valid or almost valid input, and the corpus of past findings."""

import bz2
import gzip
import json
import lzma
import zlib
from pathlib import Path

from modelfetch.provenance.manifest import Manifest
from modelfetch.volume import receipt
from modelfetch.volume.receipt import ArchiveEntry, FileEntry, Receipt
from testkit import archives
from testkit.scripted_server import ListedObject, gcs_page, s3_page
from tests.fuzz import archive_seeds

CORPUS = Path(__file__).parent / "corpus"
_SHA = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
_FILES = (FileEntry("a", 5, _SHA), FileEntry("d/b", 5, _SHA), FileEntry("l", 5, _SHA, "a"))
_ITEMS = (
    ListedObject("p/", b""),
    ListedObject("p/a"),
    ListedObject("p/d/e", b"xy"),
    ListedObject("p/d/", b""),
    ListedObject("p/ü", b""),
)
_PAX = b"m" * 2000


def _make_streams() -> list[bytes]:
    deflated = zlib.compressobj(wbits=-15)
    packed = [gzip.compress(_PAX), deflated.compress(_PAX) + deflated.flush(), bz2.compress(_PAX), lzma.compress(_PAX)]
    packed.append(archives.compress_zstd(_PAX))
    return [bytes([kind]) + data * times for kind, data in enumerate(packed) for times in (1, 2)]


def _make_receipts() -> list[bytes]:
    now = receipt.utc_now()
    digest = receipt.model_digest(_FILES, directory=True)
    one = Receipt("s3://b/m", "v", digest, _FILES, ("size",), 5, 0, 0.5, 0, now, now)
    two = Receipt("s3://b/m", "v", digest, _FILES, (), 5, 0, 0.5, 0, now, now, archive=ArchiveEntry("m.tar", 5, _SHA))
    return [each.to_json().encode() for each in (one, two)]


def _page_list(page: object) -> list[bytes]:
    assert isinstance(page, bytes)
    return [page]


def _make_responses() -> list[bytes]:
    heads = (
        'HTTP/1.1 200 OK|Content-Length: 5|ETag: "x"|Server: MinIO|X-Empty:',
        "HTTP/1.0 200 OK|Content-Length: 5",
        "HTTP/1.1 206 Partial Content|Content-Range: bytes 0-4/9|Content-Length: 5|Connection: close",
        "HTTP/1.1 200 OK|X-Folded: a| b|Content-Length: 5",
        "HTTP/1.1 200 OK|X-Zero: a\0b|Content-Length: 5",
        "HTTP/1.1 200 OK|X-Latin: \xe4\x85\t\xa0 |Content-Length: 5",
        "HTTP/1.1 200 OK|Content-Length: 5|Content-Length: 5",
        "HTTP/1.1 200 OK|Content-Length: 5|Transfer-Encoding: chunked",
        "HTTP/1.1 200 OK|Transfer-Encoding: chunked",
        "HTTP/1.1 200 OK|X-Goog-Hash: crc32c=a|x-goog-hash:md5=b|Content-Length: 005",
        "HTTP/1.1 204 No Content|Content-Length: 5",
        "HTTP/1.1 304 Not Modified|Content-Length: 5",
        "HTTP/1.1 307 Elsewhere|Location: /o|Content-Length: 0",
        "HTTP/1.1 404 Not Found|Content-Length: 5",
        "HTTP/1.1 100 Continue||HTTP/1.1 200 OK|Content-Length: 5",
        "HTTP/1.1 101 Switching|Connection: upgrade|Upgrade: h2c",
        "|HTTP/1.1 200 OK|Content-Length: 5",
    )
    responses = [(head + "||hello").replace("|", "\r\n").encode("latin-1") for head in heads]
    return [*responses, responses[0].replace(b"\r\n", b"\n"), responses[0].replace(b"\r\nS", b"\nS")]


def _make_seeds() -> dict[str, list[bytes]]:
    more = "<IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>"
    pushed = Manifest(_FILES[:2])
    return {
        "extract-archives": archive_seeds.make_seeds(),
        "decompress-streams": _make_streams(),
        "check-names": [b"a\nb/c\nb/d", "ü/日本\n.a\n-b\na..b/..c\na b".encode(), b"/".join([b"d"] * 512), b"x" * 255],
        "parse-uris": [
            *(b"s3://b/k?versionId=3sL4", b"gs://b/o#12", b"gs://b/d/", b"https://h:8443/a%20b?sig=1#f", b"~/m", b"."),
            *(
                b"file:///m%00",
                b"file://localhost/m",
                b"s3://arn:aws:s3:us-east-1:1:accesspoint/n/k",
                b"http://[::1]:80/m",
            ),
        ],
        "check-ranges": [b"bytes 5-9/100", b"bytes 5-9/*", b"120", b"Wed, 21 Oct 2026 07:28:00 GMT", b"bytes */100"],
        "parse-checksums": [
            *(
                b"sha-256=:LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ=:",
                b"crc32c=mnG7TA==,md5=XUFAKrxLKna5cZ2REBfFkg==",
            ),
            *(
                b"mnG7TA==",
                b"mnG7TA==-3",
                b'"5d41402abc4b2a76b9719d911017c592"',
                b'"5d41402abc4b2a76b9719d911017c592-3"',
            ),
        ],
        "read-receipts": _make_receipts(),
        "read-manifests": [
            pushed.to_json(directory=True).encode(),
            Manifest(_FILES[:1], version="1").to_json(directory=False).encode(),
            Manifest((), complete=False).to_json(directory=True).encode(),
        ],
        "read-journals": [b'{"plan": "p"}\n["a", 0, 5]\n["a", {"crc32": "AAAA"}]\n["b", 1', b'["a", 0, 5]\n\n'],
        "load-settings": [
            bytes([field]) + value
            for field in range(9)
            for value in (
                b"64Mi",
                b"1.5GB",
                b"30s",
                b"250ms",
                b"5",
                b'["*.bin", "a"]',
                b"*.bin,[ab]*",
                b"true",
                _SHA.encode(),
            )
        ],
        "list-s3-pages": [*_page_list(s3_page(_ITEMS).body), *_page_list(s3_page(_ITEMS, more).body)],
        "list-gcs-pages": [
            *_page_list(gcs_page(_ITEMS).body),
            *_page_list(gcs_page(_ITEMS, nextPageToken="t").body),
            json.dumps(
                {"items": [{"name": "p/a", "size": "1", "crc32c": "mnG7TA==", "contentEncoding": "gzip"}]}
            ).encode(),
        ],
        "read-response-heads": _make_responses(),
        "write-failure-reports": [
            "The key 'a' has a '..' segment.|Leave it out.|s3://b/k?X-Amz-Signature=abc \u202e\x9b".encode()
        ],
    }


def load_seeds(target: str) -> list[bytes]:
    """Return the seeds of a target and its past findings."""
    return _make_seeds()[target] + load_corpus(target)


def load_corpus(target: str) -> list[bytes]:
    """Return the inputs that broke a target in the past."""
    folder = CORPUS / target
    return [path.read_bytes() for path in sorted(folder.iterdir())] if folder.exists() else []
