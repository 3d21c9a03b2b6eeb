import gzip
import http.client
import socket
import threading
from collections.abc import Callable
from dataclasses import replace
from urllib.parse import urlsplit

import pytest
import urllib3

from testkit.fault_proxy import FaultProxy
from testkit.file_tree import random_bytes
from testkit.stores import GCSBucket, S3Bucket, Store

Proxied = Callable[[str], FaultProxy]
DATA = random_bytes(300_000)


@pytest.fixture
def pool() -> "urllib3.PoolManager":
    """Return a client that retries nothing."""
    return urllib3.PoolManager(retries=False, timeout=10)


@pytest.fixture
def proxy(gcs_bucket: GCSBucket, fault_proxy: Proxied) -> FaultProxy:
    """Return a proxy before a store that holds DATA."""
    gcs_bucket.put("m", DATA)
    proxy = fault_proxy(gcs_bucket.endpoint)
    proxy.url += f"/storage/v1/b/{gcs_bucket.bucket}/o/m?alt=media"
    return proxy


def test_store_works_unchanged_through_the_proxy(store: Store, fault_proxy: Proxied) -> None:
    """Signed uploads, heads, ranges and listings pass unchanged on one kept-alive connection, and are recorded."""
    proxy = fault_proxy(store.endpoint)
    through = replace(store, server=replace(store.server, endpoint=proxy.url))  # type: ignore[type-var, attr-defined]

    through.put("dir/m", DATA)

    assert through.get("dir/m") == DATA
    assert through.list_keys() == ["dir/m"]
    assert through.version("dir/m") == store.version("dir/m")
    assert proxy.sent_bytes() > len(DATA)
    proxy.wait_for(lambda: all(request.done for request in proxy.requests))  # the client may know before the proxy
    assert all(request.status == 200 for request in proxy.requests)


def test_wrong_secret_is_refused_through_the_proxy(s3_bucket: S3Bucket, fault_proxy: Proxied) -> None:
    """The proxy itself signs no request."""
    if s3_bucket.server.kind == "moto":
        pytest.skip("moto checks no credentials")
    proxy = fault_proxy(s3_bucket.endpoint)
    stranger = replace(s3_bucket, server=replace(s3_bucket.server, endpoint=proxy.url, secret_key="wrong"))

    with pytest.raises(Exception, match="SignatureDoesNotMatch"):
        stranger.put("m", b"x")


def test_body_is_streamed_without_holding_the_object(proxy: FaultProxy) -> None:
    """The client gets the first bytes while the server's last bytes are held back."""
    proxy.add_rule(stall_after=1000)

    reply = urllib3.PoolManager(retries=False).request("GET", proxy.url, preload_content=False)

    assert reply.read(1000) == DATA[:1000]
    reply.close()
    proxy.wait_for(lambda: proxy.requests[-1].done)
    assert proxy.sent_bytes() == 1000


def test_cut_resets_after_the_exact_number_of_bytes(proxy: FaultProxy, pool: urllib3.PoolManager) -> None:
    """The client reads all the bytes before the cut, then ECONNRESET."""
    proxy.add_rule(cut_after=100_000)
    reply = pool.request("GET", proxy.url, preload_content=False)

    assert reply.read(100_000) == DATA[:100_000]
    with pytest.raises(urllib3.exceptions.ProtocolError, match="reset"):
        reply.read(1)


def test_clean_cut_is_an_end_of_file(proxy: FaultProxy, pool: urllib3.PoolManager) -> None:
    """Only the Content-Length reveals the missing bytes."""
    proxy.add_rule(cut_after=100_000, clean=True)

    with pytest.raises(urllib3.exceptions.ProtocolError, match="200000 more expected"):
        pool.request("GET", proxy.url)


def test_clean_cut_without_a_length_goes_unnoticed(proxy: FaultProxy, pool: urllib3.PoolManager) -> None:
    """Half an object looks complete without Content-Length."""
    proxy.add_rule(cut_after=100_000, clean=True, drop=("Content-Length",))

    assert pool.request("GET", proxy.url).data == DATA[:100_000]


def test_reset_comes_before_any_response(proxy: FaultProxy, pool: urllib3.PoolManager) -> None:
    """The client receives no status line."""
    proxy.add_rule(reset=True)

    with pytest.raises(urllib3.exceptions.ProtocolError):
        pool.request("GET", proxy.url)
    assert proxy.requests[0].status == 0


def test_stall_ends_after_its_seconds(proxy: FaultProxy, pool: urllib3.PoolManager) -> None:
    """A patient client gets the rest after the stall."""
    proxy.add_rule(stall_after=1000, stall_seconds=0.1)

    assert pool.request("GET", proxy.url).data == DATA


@pytest.mark.parametrize("fault", [{"stall_after": 1000}, {"silent": True}])
def test_stalled_client_times_out(proxy: FaultProxy, fault: dict[str, object]) -> None:
    """The proxy keeps the connection and sends nothing."""
    proxy.add_rule(**fault)

    with pytest.raises(urllib3.exceptions.ReadTimeoutError):
        urllib3.PoolManager(retries=False, timeout=0.2).request("GET", proxy.url)
    proxy.wait_for(lambda: proxy.requests[-1].done)


def test_trickled_body_is_complete(proxy: FaultProxy, pool: urllib3.PoolManager) -> None:
    """A slow body arrives complete and unchanged."""
    proxy.add_rule(trickle=(30_000, 0.001))

    assert pool.request("GET", proxy.url).data == DATA


def test_status_replaces_only_the_nth_response(proxy: FaultProxy, pool: urllib3.PoolManager) -> None:
    """A rule counts the requests that match."""
    rule = proxy.add_rule(nth=2, status=503, body=b"busy", headers={"Retry-After": "7"})

    replies = [pool.request("GET", proxy.url) for _ in range(3)]

    assert [reply.status for reply in replies] == [200, 503, 200]
    assert (replies[1].data, replies[1].headers["Retry-After"]) == (b"busy", "7")
    assert rule.hits == 1
    assert [request.rule for request in proxy.requests] == [None, rule, None]


def test_flipped_byte_is_at_its_offset_in_the_object(proxy: FaultProxy, pool: urllib3.PoolManager) -> None:
    """A request not covering the offset passes; the first covering request differs in one bit."""
    proxy.add_rule(flip_at=200_000)

    first = pool.request("GET", proxy.url, headers={"Range": "bytes=0-149999"})
    second = pool.request("GET", proxy.url, headers={"Range": "bytes=150000-299999"})
    third = pool.request("GET", proxy.url, headers={"Range": "bytes=150000-299999"})

    assert first.data == DATA[:150_000]
    assert [i for i, (a, b) in enumerate(zip(second.data, DATA[150_000:], strict=True)) if a != b] == [50_000]
    assert third.data == DATA[150_000:]


def test_range_is_ignored_when_whole_is_set(proxy: FaultProxy, pool: urllib3.PoolManager) -> None:
    """A ranged request gets 200 instead of 206."""
    proxy.add_rule(ranged=True, whole=True)

    reply = pool.request("GET", proxy.url, headers={"Range": "bytes=10-19"})

    assert (reply.status, reply.data) == (200, DATA)


def test_headers_are_replaced_or_dropped(proxy: FaultProxy, pool: urllib3.PoolManager) -> None:
    """The response has a wrong Content-Range and no X-Goog-Hash."""
    proxy.add_rule(headers={"content-range": "bytes 0-9/10"}, drop=("x-goog-hash",))

    reply = pool.request("GET", proxy.url, headers={"Range": "bytes=10-19"})

    assert reply.headers["Content-Range"] == "bytes 0-9/10"
    assert "X-Goog-Hash" not in reply.headers
    assert "X-Goog-Generation" in reply.headers
    assert reply.data == DATA[10:20]


def test_repeated_headers_stay_repeated(proxy: FaultProxy, pool: urllib3.PoolManager) -> None:
    """Google sends X-Goog-Hash once for each algorithm."""
    reply = pool.request("GET", proxy.url)

    assert "crc32c=" in reply.headers["X-Goog-Hash"]
    assert "md5=" in reply.headers["X-Goog-Hash"]


def test_extra_bytes_follow_a_body_of_no_stated_length(proxy: FaultProxy, pool: urllib3.PoolManager) -> None:
    """The client receives more than the object holds."""
    proxy.add_rule(drop=("Content-Length",), extra=b"more")

    assert pool.request("GET", proxy.url).data == DATA + b"more"


def test_before_runs_between_two_requests(proxy: FaultProxy, pool: urllib3.PoolManager, gcs_bucket: GCSBucket) -> None:
    """The object is overwritten after the second request arrives and before the server sees the request."""
    proxy.add_rule(nth=2, before=lambda: gcs_bucket.put("m", b"new"))

    replies = [pool.request("GET", proxy.url).data for _ in range(2)]

    assert replies == [DATA, b"new"]


def test_redirect_leads_to_the_same_address(proxy: FaultProxy) -> None:
    """A client that follows redirects gets the object."""
    proxy.add_rule(redirect=307)

    assert urllib3.PoolManager().request("GET", proxy.url).data == DATA
    assert [request.status for request in proxy.requests] == [307, 200]


def test_cut_at_is_an_offset_in_the_object(proxy: FaultProxy, pool: urllib3.PoolManager) -> None:
    """The first range covering the offset is cut."""
    proxy.add_rule(cut_at=200_000, clean=True)

    whole = pool.request("GET", proxy.url, headers={"Range": "bytes=0-99999"}).data
    reply = pool.request("GET", proxy.url, headers={"Range": "bytes=100000-299999"}, preload_content=False)

    assert whole == DATA[:100_000]
    with pytest.raises(urllib3.exceptions.ProtocolError):
        reply.read()
    assert proxy.requests[-1].sent == 100_000


def test_length_is_wrong_or_repeated(proxy: FaultProxy, pool: urllib3.PoolManager) -> None:
    """One length is too small; a response with two different lengths is invalid."""
    proxy.add_rule(length_off=-1000)
    proxy.add_rule(extra_headers=(("Content-Length", "5"),))

    assert pool.request("GET", proxy.url).data == DATA[:-1000]
    with pytest.raises(urllib3.exceptions.InvalidHeader):
        pool.request("GET", proxy.url)


def test_http10_response_has_no_length(proxy: FaultProxy) -> None:
    """The response is HTTP/1.0 without a length, closed at the end."""
    proxy.add_rule(http10=True)
    connection = http.client.HTTPConnection(urlsplit(proxy.url).netloc, timeout=10)
    connection.request("GET", urlsplit(proxy.url).path + "?alt=media")

    reply = connection.getresponse()

    assert (reply.version, reply.getheader("Content-Length"), reply.will_close) == (10, None, True)
    assert reply.read() == DATA


def test_chunked_body_is_valid_up_to_the_bad_chunk(proxy: FaultProxy, pool: urllib3.PoolManager) -> None:
    """Chunks are valid up to the damaged chunk."""
    proxy.add_rule(chunked=True)
    proxy.add_rule(bad_chunk=100_000)

    reply = pool.request("GET", proxy.url)

    assert (reply.headers["Transfer-Encoding"], reply.data) == ("chunked", DATA)
    with pytest.raises(urllib3.exceptions.ProtocolError):
        pool.request("GET", proxy.url)
    assert proxy.requests[-1].sent >= 100_000


def test_compressed_body_states_its_encoding(proxy: FaultProxy, pool: urllib3.PoolManager) -> None:
    """The response states Content-Encoding gzip."""
    proxy.add_rule(compress=True)

    reply = pool.request("GET", proxy.url, decode_content=False)

    assert reply.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(reply.data) == DATA


def test_raw_bytes_replace_the_response(proxy: FaultProxy, pool: urllib3.PoolManager) -> None:
    """Raw bytes replace the whole response."""
    proxy.add_rule(raw=b"no HTTP\r\n\r\n")

    with pytest.raises(urllib3.exceptions.ProtocolError, match="no HTTP"):
        pool.request("GET", proxy.url)


def test_slow_head_arrives_complete(proxy: FaultProxy, pool: urllib3.PoolManager) -> None:
    """A slow head arrives complete in the end."""
    proxy.add_rule(slow_head=0.001)

    reply = pool.request("GET", proxy.url)

    assert (int(reply.headers["Content-Length"]), reply.data) == (len(DATA), DATA)


def test_request_and_body_are_rewritten(proxy: FaultProxy, pool: urllib3.PoolManager) -> None:
    """The server sees the altered request, the client the altered body; the record keeps the original request."""
    proxy.add_rule(
        rewrite=lambda request: request.headers.update(range="bytes=10-19"), edit=lambda body: body[::-1] + b"more"
    )

    reply = pool.request("GET", proxy.url, headers={"Range": "bytes=0-9"})

    assert (reply.status, reply.data, reply.headers["Content-Length"]) == (206, DATA[19:9:-1] + b"more", "14")
    assert proxy.requests[-1].range == "bytes=0-9"


def test_chunked_uploads_pass(gcs_bucket: GCSBucket, fault_proxy: Proxied) -> None:
    """A body without a length reaches the server whole."""
    proxy = fault_proxy(gcs_bucket.endpoint)
    connection = http.client.HTTPConnection(urlsplit(proxy.url).netloc, timeout=10)
    path = f"/upload/storage/v1/b/{gcs_bucket.bucket}/o?uploadType=media&name=c"

    connection.request("POST", path, body=iter([DATA[:100_000], DATA[100_000:]]), encode_chunked=True)

    assert connection.getresponse().status == 200
    connection.close()
    assert gcs_bucket.get("c") == DATA


def test_many_clients_are_served_at_once(proxy: FaultProxy) -> None:
    """A stalled client holds up no other client."""
    proxy.add_rule(stall_after=0)
    stalled = socket.create_connection(("127.0.0.1", urlsplit(proxy.url).port or 0))
    stalled.sendall(f"GET {urlsplit(proxy.url).path}?alt=media HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    proxy.wait_for(lambda: proxy.requests and proxy.requests[0].status)
    got: list[bytes] = []
    pool = urllib3.PoolManager(maxsize=8, block=True, retries=False)
    threads = [threading.Thread(target=lambda: got.append(pool.request("GET", proxy.url).data)) for _ in range(8)]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    stalled.close()
    assert got == [DATA] * 8
