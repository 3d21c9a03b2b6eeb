import json
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from http.client import HTTPResponse
from xml.etree import ElementTree as ET

import pytest

from bench import server, store_responses
from bench.data import StoredObject
from bench.server import Server

NAMES = {"": "http://s3.amazonaws.com/doc/2006-03-01/"}
KEYS = ["large.bin", "tiny.bin", *(f"small/part-{number:05}.bin" for number in range(1001))]


@pytest.fixture(scope="module")
def objects() -> list[StoredObject]:
    """Return an object uploaded in parts, a small object, and a folder longer than a page."""
    sizes = {"large.bin": 9 * 1024**2}
    return [StoredObject(key, sizes.get(key, 5), "aa" * 32, "bb" * 8, "cc" * 4, "dd" * 16) for key in KEYS]


@pytest.fixture(scope="module")
def store(objects: list[StoredObject], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Serve the objects with nginx."""
    if server.find_nginx() is None:
        pytest.skip("there is no nginx with the headers-more module here")
    made = tmp_path_factory.mktemp("made")
    for each in objects:
        (made / each.key).parent.mkdir(exist_ok=True)
        (made / each.key).write_bytes(bytes(each.size))
    with server.start_server(made, objects) as found:
        yield found


def send_request(
    store: Server, path: str, headers: Mapping[str, str] | None = None, method: str = "GET"
) -> HTTPResponse:
    """Send a request and return the response."""
    request = urllib.request.Request(store.endpoint + path, headers=dict(headers or {}), method=method)
    context = ssl.create_default_context(cafile=str(store.ca))
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    reply: HTTPResponse = opener.open(request, timeout=30)
    return reply


def test_s3_states_the_checksum_of_the_whole_object_to_who_asks(store: Server, objects: list[StoredObject]) -> None:
    """The checksum is sent on request and never with a range; the ETag always."""
    asking = {"x-amz-checksum-mode": "ENABLED", "If-Match": f'"{objects[0].etag}"'}

    told = send_request(store, "/bench/large.bin", asking, "HEAD")
    untold = send_request(store, "/bench/large.bin", method="HEAD")
    part = send_request(store, "/bench/large.bin", {**asking, "Range": "bytes=2-5"})

    assert told.headers["x-amz-checksum-crc64nvme"] == "u7u7u7u7u7s="
    assert told.headers["x-amz-checksum-type"] == "FULL_OBJECT"
    assert told.headers["etag"] == f'"{"aa" * 16}-2"'
    assert "x-amz-checksum-crc64nvme" not in untold.headers
    assert "x-amz-checksum-crc64nvme" not in part.headers
    assert (part.status, part.headers["content-range"], part.read()) == (206, "bytes 2-5/9437184", bytes(4))


def test_a_small_objects_etag_is_its_md5(store: Server) -> None:
    """A small object has the ETag of a single-part upload."""
    assert send_request(store, "/bench/tiny.bin").headers["etag"] == f'"{"dd" * 16}"'


@pytest.mark.parametrize("prefix", ["small/", "small%2F"])
def test_s3_lists_every_key_once_over_its_pages(store: Server, prefix: str) -> None:
    """A page has 1000 keys, and the token leads to the next."""
    path, keys, pages = f"/bench?list-type=2&prefix={prefix}&encoding-type=url", [], 0
    token: str | None = ""
    while token is not None:
        page = ET.fromstring(send_request(store, f"{path}&continuation-token={token}" if token else path).read())
        keys += [each.text for each in page.iterfind("Contents/Key", NAMES)]
        token = page.findtext("NextContinuationToken", None, NAMES)
        pages += 1

    assert pages == 2
    assert keys == [key for key in KEYS if key.startswith("small/")]


def test_what_is_not_there_is_404_and_an_empty_listing(store: Server) -> None:
    """A missing object is 404, a missing prefix an empty listing, as on S3."""
    with pytest.raises(urllib.error.HTTPError, match="404") as caught:
        send_request(store, "/bench/nothing.bin")
    caught.value.close()
    page = ET.fromstring(send_request(store, "/bench?list-type=2&prefix=nothing").read())

    assert page.findtext("KeyCount", None, NAMES) == "0"


def test_gcs_states_metadata_and_gives_the_bytes_at_their_link(store: Server) -> None:
    """The mediaLink points to this server and serves the bytes."""
    told = json.loads(send_request(store, "/storage/v1/b/bench/o/small%2Fpart-00000.bin").read())
    media = send_request(store, told["mediaLink"].removeprefix(store.endpoint))

    assert (told["name"], told["size"], told["crc32c"]) == ("small/part-00000.bin", "5", "zMzMzA==")
    assert media.headers["x-goog-generation"] == told["generation"] == store_responses.GENERATION
    assert media.headers["x-goog-hash"] == f"crc32c={told['crc32c']},md5={told['md5Hash']}"
    assert media.read() == bytes(5)


def test_gcs_lists_every_object_once_over_its_pages(store: Server) -> None:
    """A page has 1000 objects, and the token leads to the next."""
    first = json.loads(send_request(store, "/storage/v1/b/bench/o?prefix=small/&projection=noAcl").read())
    second = json.loads(
        send_request(store, f"/storage/v1/b/bench/o?prefix=small/&pageToken={first['nextPageToken']}").read()
    )

    names = [each["name"] for each in first["items"] + second["items"]]
    assert names == [key for key in KEYS if key.startswith("small/")]
    assert "nextPageToken" not in second


def test_requests_are_counted_from_where_one_began(store: Server) -> None:
    """Requests are counted from a log position: basis of the single-request goal."""
    seen = store.log_position()

    send_request(store, "/bench/tiny.bin", method="HEAD")
    while not store.requests_since(seen):  # nginx writes the line once the reply is gone
        time.sleep(0.01)

    assert [line.split()[:3] for line in store.requests_since(seen)] == [["HEAD", "/bench/tiny.bin", "200"]]
