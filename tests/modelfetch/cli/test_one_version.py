"""All bytes are of one version: pins that a store ignores, missing and weak validators, bodies cut short or encoded."""

import gzip
import itertools
import os
import re
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from modelfetch.errors import ChangedError
from modelfetch.sources import SourceOptions, parse_uri
from modelfetch.sources.file import FileSource
from modelfetch.transfer.range_reader import MemorySink, RangeReader
from testkit.cli_runner import CliRunner
from testkit.fault_proxy import FaultProxy
from testkit.file_tree import random_bytes, sha256_hex
from testkit.https_server import HttpsServer
from testkit.scripted_server import (
    ListedObject,
    ScriptedServer,
    ServerRequest,
    ServerResponse,
    gcs_store,
    range_response,
    s3_store,
)
from testkit.stores import S3Bucket

OLD, NEW = random_bytes(40_000_000, 1), random_bytes(40_000_000, 2)
ONCE = ("--retries", "1")


def serve_web(
    server: ScriptedServer, data: Callable[[], bytes], headers: Callable[[], tuple[tuple[str, str], ...]] = tuple
) -> list[ServerRequest]:
    """Serve a file with ranges, with the headers of each response; return the list of requests to come."""
    requests: list[ServerRequest] = []

    def respond(request: ServerRequest) -> ServerResponse:
        requests.append(request)
        ranged = (("Accept-Ranges", "bytes"), *headers())
        return range_response(request, data(), ranged)

    server.respond_with(respond)
    return requests


# --- pins -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["s3", "gcs"])
def test_store_that_ignores_the_pin_is_refused(
    modelfetch: CliRunner, scripted_server: ScriptedServer, tmp_path: Path, kind: str
) -> None:
    """Some stores answer with the newest object, whatever version or generation is asked for."""
    newest = ListedObject("m", b"newest")
    scripted_server.respond_with(*(s3_store(newest) if kind == "s3" else gcs_store(newest)))
    env = scripted_server.s3_env if kind == "s3" else scripted_server.gcs_env
    source = "s3://b/m?versionId=3sL4kqtJlcp" if kind == "s3" else "gs://b/m#17"

    run = modelfetch("pull", source, tmp_path / "m", *ONCE, env=env)

    assert run.code == 65, run.stderr
    assert "version 3sL4kqtJlcp" in run.error["message"] or "version 17" in run.error["message"]
    assert not (tmp_path / "m").exists()


def test_s3_response_without_the_pinned_version_is_refused(
    modelfetch: CliRunner,
    s3_versioned: S3Bucket,
    fault_proxy: Callable[[str], FaultProxy],
    tmp_path: Path,
) -> None:
    """The HEAD response confirms the version, and the GET response does not."""
    s3_versioned.put("m", b"old")
    version = s3_versioned.version("m")
    proxy = fault_proxy(s3_versioned.endpoint)
    proxy.add_rule(method="GET", drop=("x-amz-version-id", "ETag"), times=None)

    run = modelfetch(
        "pull", s3_versioned.pinned_uri("m", version), tmp_path / "m", *ONCE, env=s3_versioned.env_at(proxy.url)
    )

    assert run.code == 65, run.stderr
    assert not (tmp_path / "m").exists()


def test_null_version_of_a_store_without_versions_is_pulled(
    modelfetch: CliRunner, s3_bucket: S3Bucket, tmp_path: Path
) -> None:
    """`null` names the object that has no version id."""
    s3_bucket.put("m", b"model")

    modelfetch.ok("pull", f"{s3_bucket.uri('m')}?versionId=null", tmp_path / "m", env=s3_bucket.env)

    assert (tmp_path / "m").read_bytes() == b"model"


# --- validators -----------------------------------------------------------------------------------------------------


def test_object_without_validators_is_read_in_one_stream(
    modelfetch: CliRunner, scripted_server: ScriptedServer, tmp_path: Path
) -> None:
    """Parts read one by one could be of two versions."""
    requests = serve_web(scripted_server, lambda: OLD)

    modelfetch.ok("pull", f"{scripted_server.url}/m", tmp_path / "m")

    assert (tmp_path / "m").read_bytes() == OLD
    assert [r.headers.get("range") for r in requests if r.method == "GET"] == [None]


def test_broken_stream_without_validators_begins_again_at_the_first_byte(
    modelfetch: CliRunner, scripted_server: ScriptedServer, fault_proxy: Callable[[str], FaultProxy], tmp_path: Path
) -> None:
    """The file is replaced while the connection breaks: the rest would be of the new version."""
    content = itertools.chain([OLD, OLD], itertools.repeat(NEW))  # HEAD, first GET, all later requests
    serve_web(scripted_server, lambda: next(content))
    proxy = fault_proxy(scripted_server.url)
    proxy.add_rule(method="GET", cut_after=20_000_000)

    modelfetch.ok("pull", f"{proxy.url}/m", tmp_path / "m")

    assert (tmp_path / "m").read_bytes() == NEW


def test_weak_etag_that_changes_between_ranges_is_never_a_mixture(
    modelfetch: CliRunner, scripted_server: ScriptedServer, tmp_path: Path
) -> None:
    """A file that is replaced after the second range: the pull fails, or brings one version whole."""
    counter = itertools.count()
    state = {"version": 0}

    def tick() -> tuple[tuple[str, str], ...]:
        state["version"] = int(next(counter) >= 2)
        return (("ETag", f'W/"v{state["version"]}"'),)

    serve_web(scripted_server, lambda: (OLD, NEW)[int(state["version"])], tick)

    run = modelfetch("pull", f"{scripted_server.url}/m", tmp_path / "m", "--connections", "2")

    assert (run.code, (tmp_path / "m").read_bytes() == NEW) == (0, True), run.stderr


def test_unchanged_weak_etag_lets_parts_be_read_in_parallel(
    modelfetch: CliRunner, scripted_server: ScriptedServer, tmp_path: Path
) -> None:
    """If-Match is not sent, for a weak validator never matches."""
    requests = serve_web(scripted_server, lambda: OLD, lambda: (("ETag", 'W/"v1"'),))

    modelfetch.ok("pull", f"{scripted_server.url}/m", tmp_path / "m")

    assert (tmp_path / "m").read_bytes() == OLD
    assert sum("range" in r.headers for r in requests) > 1
    assert [r for r in requests if "if-match" in r.headers] == []


def test_s3_object_without_an_etag_is_pulled_but_never_up_to_date(
    modelfetch: CliRunner, s3_bucket: S3Bucket, fault_proxy: Callable[[str], FaultProxy], tmp_path: Path
) -> None:
    """Size and checksum are compared; without a version, nothing is there already."""
    s3_bucket.put("m", OLD)
    proxy = fault_proxy(s3_bucket.endpoint)
    proxy.add_rule(drop=("ETag",), times=None)
    pull = ("pull", s3_bucket.uri("m"), tmp_path / "m", "--output", "json")

    first = modelfetch.ok(*pull, env=s3_bucket.env_at(proxy.url))
    modelfetch.ok(*pull, env=s3_bucket.env_at(proxy.url))

    assert (tmp_path / "m").read_bytes() == OLD
    assert first.receipt["version"] == ""
    assert len(proxy.matching_requests("GET")) == 2


def test_listing_without_etags_has_no_version(
    modelfetch: CliRunner, s3_bucket: S3Bucket, fault_proxy: Callable[[str], FaultProxy], tmp_path: Path
) -> None:
    """Names and sizes are no version: a file replaced by another of its size is noticed by the next pull."""
    s3_bucket.put_many("m/", {"a": b"old", "b": b"same"})
    proxy = fault_proxy(s3_bucket.endpoint)
    proxy.add_rule(
        query="list-type", edit=lambda body: re.sub(rb"<ETag>.*?</ETag>", b"", body), drop=("ETag",), times=None
    )
    env = s3_bucket.env_at(proxy.url)

    modelfetch.ok("pull", s3_bucket.uri("m/"), tmp_path / "m", env=env)
    s3_bucket.put("m/a", b"new")
    run = modelfetch.ok("pull", s3_bucket.uri("m/"), tmp_path / "m", "--output", "json", env=env)

    assert (tmp_path / "m/a").read_bytes() == b"new"
    assert run.receipt["version"] == ""


# --- bodies ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pinned", [False, True])
def test_length_that_nobody_stated_needs_a_pin(
    modelfetch: CliRunner, scripted_server: ScriptedServer, tmp_path: Path, pinned: bool
) -> None:
    """A connection that just ends may have been cut."""
    data = OLD[:100_000]
    scripted_server.respond_with(
        lambda request: ServerResponse(200, (), iter([b"" if request.method == "HEAD" else data]))
    )
    pin = ("--sha256", sha256_hex(data)) if pinned else ()

    run = modelfetch("pull", f"{scripted_server.url}/m", tmp_path / "m", *ONCE, *pin)

    assert run.code == (0 if pinned else 65), run.stderr
    assert (tmp_path / "m").exists() == pinned


@pytest.mark.parametrize("name", ["m", "m.tar.gz"])
def test_encoding_that_was_not_asked_for_is_refused(
    modelfetch: CliRunner, scripted_server: ScriptedServer, tmp_path: Path, name: str
) -> None:
    """Encoded bytes are never published as they are; the encoding that a name states is the file's own."""
    packed = gzip.compress(b"model")
    scripted_server.respond_with(
        lambda request: ServerResponse(
            200,
            (("Content-Encoding", "gzip"), ("Content-Length", str(len(packed)))),
            b"" if request.method == "HEAD" else packed,
        )
    )

    run = modelfetch("pull", f"{scripted_server.url}/{name}", f"{tmp_path}/d/", *ONCE, "--no-extract")

    assert run.code == (0 if name.endswith(".gz") else 69), run.stderr
    assert (tmp_path / "d" / name).exists() == name.endswith(".gz")


def test_tls_body_cut_without_close_notify_is_refused(
    modelfetch: CliRunner,
    https_server: HttpsServer,
    fault_proxy: Callable[..., FaultProxy],
    scripted_server: ScriptedServer,
    tmp_path: Path,
) -> None:
    """Even with a pin that fits the cut body, for the end is nobody's word."""
    proxy = fault_proxy("http://127.0.0.1:9", https_server.tls)
    head = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"
    proxy.add_rule(raw=head + b"cut", times=None)

    run = modelfetch(
        "pull", f"{proxy.url}/m", tmp_path / "m", *ONCE, "--sha256", sha256_hex(b"cut"), env=https_server.env
    )

    assert run.code in (65, 75), run.stderr
    assert not (tmp_path / "m").exists()


def test_bytes_behind_a_tls_response_do_not_become_the_next_response(
    modelfetch: CliRunner,
    fault_proxy: Callable[..., FaultProxy],
    https_server: HttpsServer,
    s3_bucket: S3Bucket,
    tmp_path: Path,
) -> None:
    """A server that talks too much, once: the connection is not used again."""
    files = {f"{n}": random_bytes(5, n) for n in range(40)}
    s3_bucket.put_many("m/", files)
    forged = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwrong"
    proxy = fault_proxy(s3_bucket.endpoint, https_server.tls)
    proxy.add_rule(method="GET", path="/m/", edit=lambda body: body + forged, length_off=-len(forged), times=None)

    run = modelfetch(
        "pull", s3_bucket.uri("m/"), tmp_path / "m", env={**s3_bucket.env_at(proxy.url), **https_server.env}
    )

    assert run.code == 0, run.stderr
    assert {path.name: path.read_bytes() for path in (tmp_path / "m").iterdir() if path.name in files} == files


def test_bytes_before_a_tls_reset_are_kept(
    modelfetch: CliRunner,
    fault_proxy: Callable[..., FaultProxy],
    https_server: HttpsServer,
    s3_bucket: S3Bucket,
    tmp_path: Path,
) -> None:
    """A transfer that breaks after each 200 kB comes to its end, from the byte where it broke."""
    s3_bucket.put("m", OLD[:4_000_000])
    proxy = fault_proxy(s3_bucket.endpoint, https_server.tls)
    proxy.add_rule(**s3_bucket.download_filter("m"), cut_after=200_000, times=None)

    run = modelfetch(
        "pull", s3_bucket.uri("m"), tmp_path / "m", *ONCE, env={**s3_bucket.env_at(proxy.url), **https_server.env}
    )

    assert run.code == 0, run.stderr
    assert (tmp_path / "m").read_bytes() == OLD[:4_000_000]
    assert proxy.sent_bytes("m$") < 6_000_000


# --- paths ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["rewritten", "replaced"])
def test_file_of_equal_size_and_mtime_is_not_taken_for_unchanged(
    modelfetch: CliRunner, tmp_path: Path, how: str
) -> None:
    """Reproducible image builds give every file one mtime."""
    source, dest = tmp_path / "model", tmp_path / "dest"
    source.write_bytes(b"old")
    os.utime(source, (1, 1))
    modelfetch.ok("pull", source, dest)

    target = source if how == "rewritten" else tmp_path / "new"
    target.write_bytes(b"new")
    os.utime(target, (1, 1))
    target.replace(source)
    modelfetch.ok("pull", source, dest)

    assert dest.read_bytes() == b"new"
    assert modelfetch.ok("pull", source, dest).log[-1]["message"].endswith("unchanged.")


def test_file_rewritten_while_it_is_read_is_noticed(tmp_path: Path) -> None:
    """The descriptor is examined after the last byte of a range: a mixture is never taken for one version."""
    path = tmp_path / "m"
    path.write_bytes(OLD)
    os.utime(path, (1, 1))
    source = FileSource(parse_uri(str(path)), SourceOptions())
    (obj,) = source.resolve().objects
    rewritten: list[bytes] = []

    def rewrite_once(_: int) -> None:
        if not rewritten:
            rewritten.append(NEW)
            path.write_bytes(NEW)
            os.utime(path, (1, 1))

    with closing(RangeReader(source, rewrite_once)) as reader, pytest.raises(ChangedError):
        reader.read_range(obj, 0, obj.size, MemorySink(bytearray(len(OLD))))
