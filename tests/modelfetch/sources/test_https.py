"""Interpretation of response headers of any web server."""

import pytest

from modelfetch import plan
from modelfetch.errors import NotFoundError, RefusedError, TransientError, UnsafeNameError
from modelfetch.sources import RemoteObject, SourceOptions, open_source, parse_uri
from testkit.scripted_server import ScriptedServer, ServerResponse

SHA256 = "LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ="  # of "hello"


def stated(
    scripted_server: ScriptedServer, *headers: tuple[str, str], status: int = 200, path: str = "m.bin"
) -> RemoteObject:
    """Return the object that a server with these headers describes."""
    scripted_server.respond_with(
        lambda asked: ServerResponse(status, headers, b"hello") if asked.path != "/gone" else None
    )
    (found,) = open_source(parse_uri(f"{scripted_server.url}/{path}"), SourceOptions()).resolve().objects
    return found


@pytest.mark.parametrize(
    ("length", "size"),
    [
        ("5", 5),
        ("0", 0),
        *((str(2**number), 2**number) for number in (31, 63, 64, 70)),
        *((odd, None) for odd in ("-1", "+5", "5.0", "five", "", "0x5", "5, 5", "5,5", "9" * 31, "9" * 5000)),
    ],
)
def test_length_that_is_no_number_is_unknown(scripted_server: ScriptedServer, length: str, size: int | None) -> None:
    """However many digits the header has."""
    assert stated(scripted_server, ("Content-Length", length)).size == size


@pytest.mark.parametrize(
    ("total", "size"),
    [("0-0/5", 5), (f"0-0/{2**70}", 2**70), ("*/5", 5), ("0-0/*", None), ("x", None), (f"0-0/{'9' * 5000}", None)],
)
def test_size_comes_from_a_range_if_head_states_none(
    scripted_server: ScriptedServer, total: str, size: int | None
) -> None:
    """An invalid Content-Range leaves the size unknown: the response holds a part."""
    scripted_server.respond_with(
        lambda asked: (
            ServerResponse(405)
            if asked.method == "HEAD"
            else ServerResponse(206, (("Content-Range", f"bytes {total}"),), b"h")
        )
    )

    assert open_source(parse_uri(f"{scripted_server.url}/m"), SourceOptions()).resolve().objects[0].size == size


@pytest.mark.parametrize(
    ("header", "value", "found"),
    [
        ("Repr-Digest", f"sha-256=:{SHA256}:", {"sha256"}),
        ("Repr-Digest", f"md5=:AAAA:, sha-256=:{SHA256}:", {"sha256"}),
        *(
            ("Repr-Digest", odd, set())
            for odd in ("", "sha-256", "sha-256=::", "sha-256=:/:", "sha-256=:====:", "\xff")
        ),
        ("x-goog-hash", "crc32c=mnG7TA==,md5=XUFAKrxLKna5cZ2REBfFkg==", {"crc32c", "md5"}),
        *(("x-goog-hash", odd, set()) for odd in ("", "crc32c", "crc32c=", "crc32c=A", "md5=\xff", ",,,=", "=x")),
    ],
)
def test_malformed_checksum_is_ignored(
    scripted_server: ScriptedServer, header: str, value: str, found: set[str]
) -> None:
    """The receipt lists the checksums that were compared."""
    assert set(stated(scripted_server, (header, value)).checksums) == found


@pytest.mark.parametrize("name", ["a%00b", "a%ffb", "%2e%2e", "%2e", "a%5cb", "a%0ab", "a%7fb", "a%c2%9bb", "x" * 256])
def test_unsafe_file_name_of_a_url_is_refused(scripted_server: ScriptedServer, name: str) -> None:
    """Independent of the name in DEST."""
    uri = parse_uri(f"{scripted_server.url}/{name}")
    scripted_server.respond_with(lambda _: ServerResponse(body=b"x"))
    found = open_source(uri, SourceOptions()).resolve()

    with pytest.raises(UnsafeNameError):
        plan.make_plan(found, uri, plan.PlanLimits(max_files=9))


def test_escaped_slash_separates_path_segments(scripted_server: ScriptedServer) -> None:
    """Only the text after the last slash is the file name."""
    assert stated(scripted_server, path="..%2f..%2fm").path == "m"


@pytest.mark.parametrize("to", ["file:///etc/passwd", "s3://b/m", "ftp://h/m", "http://", "//", "\x1b[2J"])
def test_redirect_to_another_scheme_is_refused(scripted_server: ScriptedServer, to: str) -> None:
    """The error blames the server, not the configuration."""
    scripted_server.respond_with(lambda asked: ServerResponse(302, (("Location", to),)) if asked.path == "/m" else None)

    with pytest.raises((RefusedError, TransientError, NotFoundError)) as caught:
        open_source(parse_uri(f"{scripted_server.url}/m"), SourceOptions()).resolve()

    assert "passwd" not in caught.value.message
