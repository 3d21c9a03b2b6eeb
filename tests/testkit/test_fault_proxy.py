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
    """A client that retries nothing."""
    return urllib3.PoolManager(retries=False, timeout=10)


@pytest.fixture
def proxy(gcs_bucket: GCSBucket, fault_proxy: Proxied) -> FaultProxy:
    """A proxy in front of a store that holds DATA."""
    gcs_bucket.put("m", DATA)
    proxy = fault_proxy(gcs_bucket.endpoint)
    proxy.url += f"/storage/v1/b/{gcs_bucket.bucket}/o/m?alt=media"
    return proxy


def test_a_store_works_through_the_proxy(store: Store, fault_proxy: Proxied) -> None:
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


def test_a_wrong_secret_is_still_refused_through_the_proxy(s3_bucket: S3Bucket, fault_proxy: Proxied) -> None:
    """The proxy signs nothing itself."""
    if s3_bucket.server.kind == "moto":
        pytest.skip("moto checks no credentials")
    proxy = fault_proxy(s3_bucket.endpoint)
    stranger = replace(s3_bucket, server=replace(s3_bucket.server, endpoint=proxy.url, secret_key="wrong"))

    with pytest.raises(Exception, match="SignatureDoesNotMatch"):
        stranger.put("m", b"x")


def test_it_does_not_hold_an_object(proxy: FaultProxy) -> None:
    """The client gets the first bytes while the server's last ones are held back."""
    proxy.add_rule(stall_after=1000)

    reply = urllib3.PoolManager(retries=False).request("GET", proxy.url, preload_content=False)

    assert reply.read(1000) == DATA[:1000]
    reply.close()
    proxy.wait_for(lambda: proxy.requests[-1].done)
    assert proxy.sent_bytes() == 1000


def test_a_cut_is_a_reset_after_exactly_so_many_bytes(proxy: FaultProxy, pool: urllib3.PoolManager) -> None:
    """The client reads all of them, then ECONNRESET."""
    proxy.add_rule(cut_after=100_000)
    reply = pool.request("GET", proxy.url, preload_content=False)

    assert reply.read(100_000) == DATA[:100_000]
    with pytest.raises(urllib3.exceptions.ProtocolError, match="reset"):
        reply.read(1)


def test_a_clean_cut_is_an_end_of_file(proxy: FaultProxy, pool: urllib3.PoolManager) -> None:
    """Only the Content-Length tells that more was to come."""
    proxy.add_rule(cut_after=100_000, clean=True)

    with pytest.raises(urllib3.exceptions.ProtocolError, match="200000 more expected"):
        pool.request("GET", proxy.url)


def test_without_a_length_a_clean_cut_goes_unnoticed(proxy: FaultProxy, pool: urllib3.PoolManager) -> None:
    """The worst of them: half an object that looks whole."""
    proxy.add_rule(cut_after=100_000, clean=True, drop=("Content-Length",))

    assert pool.request("GET", proxy.url).data == DATA[:100_000]


def test_a_reset_comes_before_any_answer(proxy: FaultProxy, pool: urllib3.PoolManager) -> None:
    """No status line."""
    proxy.add_rule(reset=True)

    with pytest.raises(urllib3.exceptions.ProtocolError):
        pool.request("GET", proxy.url)
    assert proxy.requests[0].status == 0


def test_a_stall_ends_when_its_time_is_over(proxy: FaultProxy, pool: urllib3.PoolManager) -> None:
    """A client that waits gets the rest."""
    proxy.add_rule(stall_after=1000, stall_seconds=0.1)

    assert pool.request("GET", proxy.url).data == DATA


@pytest.mark.parametrize("fault", [{"stall_after": 1000}, {"mute": True}])
def test_a_stalled_client_times_out(proxy: FaultProxy, fault: dict[str, object]) -> None:
    """It keeps the connection and says nothing."""
    proxy.add_rule(**fault)

    with pytest.raises(urllib3.exceptions.ReadTimeoutError):
        urllib3.PoolManager(retries=False, timeout=0.2).request("GET", proxy.url)
    proxy.wait_for(lambda: proxy.requests[-1].done)


def test_a_trickle_loses_nothing(proxy: FaultProxy, pool: urllib3.PoolManager) -> None:
    """Slow is not broken."""
    proxy.add_rule(trickle=(30_000, 0.001))

    assert pool.request("GET", proxy.url).data == DATA


def test_a_status_replaces_the_answer_for_the_nth_request_only(proxy: FaultProxy, pool: urllib3.PoolManager) -> None:
    """Rules count the requests that they match."""
    rule = proxy.add_rule(nth=2, status=503, body=b"busy", headers={"Retry-After": "7"})

    replies = [pool.request("GET", proxy.url) for _ in range(3)]

    assert [reply.status for reply in replies] == [200, 503, 200]
    assert (replies[1].data, replies[1].headers["Retry-After"]) == (b"busy", "7")
    assert rule.hits == 1
    assert [request.rule for request in proxy.requests] == [None, rule, None]


def test_a_flipped_byte_is_at_its_offset_in_the_object(proxy: FaultProxy, pool: urllib3.PoolManager) -> None:
    """Requests that do not ask for it pass; the one that does is spoilt in one bit."""
    proxy.add_rule(flip_at=200_000)

    first = pool.request("GET", proxy.url, headers={"Range": "bytes=0-149999"})
    second = pool.request("GET", proxy.url, headers={"Range": "bytes=150000-299999"})
    third = pool.request("GET", proxy.url, headers={"Range": "bytes=150000-299999"})

    assert first.data == DATA[:150_000]
    assert [i for i, (a, b) in enumerate(zip(second.data, DATA[150_000:], strict=True)) if a != b] == [50_000]
    assert third.data == DATA[150_000:]


def test_a_range_may_be_answered_with_the_whole_object(proxy: FaultProxy, pool: urllib3.PoolManager) -> None:
    """200 for 206."""
    proxy.add_rule(ranged=True, whole=True)

    reply = pool.request("GET", proxy.url, headers={"Range": "bytes=10-19"})

    assert (reply.status, reply.data) == (200, DATA)


def test_headers_may_lie_or_be_missing(proxy: FaultProxy, pool: urllib3.PoolManager) -> None:
    """A wrong Content-Range, and no X-Goog-Hash."""
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
    """More than the object holds."""
    proxy.add_rule(drop=("Content-Length",), extra=b"more")

    assert pool.request("GET", proxy.url).data == DATA + b"more"


def test_something_may_happen_between_two_requests(
    proxy: FaultProxy, pool: urllib3.PoolManager, gcs_bucket: GCSBucket
) -> None:
    """An object is overwritten when the second request comes, before the server sees it."""
    proxy.add_rule(nth=2, before=lambda: gcs_bucket.put("m", b"new"))

    replies = [pool.request("GET", proxy.url).data for _ in range(2)]

    assert replies == [DATA, b"new"]


def test_a_redirect_leads_to_the_same_address(proxy: FaultProxy) -> None:
    """Clients that follow end at the object."""
    proxy.add_rule(redirect=307)

    assert urllib3.PoolManager().request("GET", proxy.url).data == DATA
    assert [request.status for request in proxy.requests] == [307, 200]


def test_a_cut_may_be_at_an_offset_of_the_object(proxy: FaultProxy, pool: urllib3.PoolManager) -> None:
    """In whatever range it falls."""
    proxy.add_rule(cut_at=200_000, clean=True)

    whole = pool.request("GET", proxy.url, headers={"Range": "bytes=0-99999"}).data
    reply = pool.request("GET", proxy.url, headers={"Range": "bytes=100000-299999"}, preload_content=False)

    assert whole == DATA[:100_000]
    with pytest.raises(urllib3.exceptions.ProtocolError):
        reply.read()
    assert proxy.requests[-1].sent == 100_000


def test_a_length_may_be_wrong_or_said_twice(proxy: FaultProxy, pool: urllib3.PoolManager) -> None:
    """Too small by some bytes; of two different ones the client is told of both."""
    proxy.add_rule(length_off=-1000)
    proxy.add_rule(also=(("Content-Length", "5"),))

    assert pool.request("GET", proxy.url).data == DATA[:-1000]
    with pytest.raises(urllib3.exceptions.InvalidHeader):
        pool.request("GET", proxy.url)


def test_a_reply_may_be_of_the_old_kind(proxy: FaultProxy) -> None:
    """HTTP/1.0, no length, closed at its end."""
    proxy.add_rule(old=True)
    connection = http.client.HTTPConnection(urlsplit(proxy.url).netloc, timeout=10)
    connection.request("GET", urlsplit(proxy.url).path + "?alt=media")

    reply = connection.getresponse()

    assert (reply.version, reply.getheader("Content-Length"), reply.will_close) == (10, None, True)
    assert reply.read() == DATA


def test_a_body_may_come_in_chunks_of_which_one_is_damaged(proxy: FaultProxy, pool: urllib3.PoolManager) -> None:
    """Whole ones first."""
    proxy.add_rule(chunked=True)
    proxy.add_rule(bad_chunk=100_000)

    reply = pool.request("GET", proxy.url)

    assert (reply.headers["Transfer-Encoding"], reply.data) == ("chunked", DATA)
    with pytest.raises(urllib3.exceptions.ProtocolError):
        pool.request("GET", proxy.url)
    assert proxy.requests[-1].sent >= 100_000


def test_a_body_may_be_compressed_on_its_way(proxy: FaultProxy, pool: urllib3.PoolManager) -> None:
    """And says so."""
    proxy.add_rule(compress=True)

    reply = pool.request("GET", proxy.url, decode_content=False)

    assert reply.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(reply.data) == DATA


def test_anything_may_come_in_place_of_an_answer(proxy: FaultProxy, pool: urllib3.PoolManager) -> None:
    """Bytes as they stand."""
    proxy.add_rule(raw=b"no HTTP\r\n\r\n")

    with pytest.raises(urllib3.exceptions.ProtocolError, match="no HTTP"):
        pool.request("GET", proxy.url)


def test_a_head_may_come_line_by_line(proxy: FaultProxy, pool: urllib3.PoolManager) -> None:
    """All of it, in the end."""
    proxy.add_rule(slow_head=0.001)

    reply = pool.request("GET", proxy.url)

    assert (int(reply.headers["Content-Length"]), reply.data) == (len(DATA), DATA)


def test_request_and_body_may_be_altered(proxy: FaultProxy, pool: urllib3.PoolManager) -> None:
    """The server sees the one, the client the other; what was asked is on record."""
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
    """One that is stalled holds up no other."""
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
