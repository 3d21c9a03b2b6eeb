"""Hostile responses: malformed, false or oversized."""

import gzip
from collections.abc import Iterator

from testkit.scripted_server import ListedObject, Responder, ServerRequest, ServerResponse, respond_always, s3_page
from tests.faults.hostile_trial import HostileCase

XML, JSON = (("Content-Type", "application/xml"),), (("Content-Type", "application/json"),)
BEGIN = b'<?xml version="1.0"?><ListBucketResult>'
BILLION_LAUGHS = "".join(f'<!ENTITY {c} "{f"&{p};" * 10}">' for p, c in zip("abcdefghij", "bcdefghijk", strict=True))
DTDS = {
    "billion laughs": (f'<!DOCTYPE l [<!ENTITY a "{"a" * 10}">{BILLION_LAUGHS}]>', "&k;"),
    "external entity": ('<!DOCTYPE l [<!ENTITY x SYSTEM "file:///etc/passwd">]>', "&x;"),
}
INVALID_XML = {
    "html": b"<html><body>Sign in</body></html>",
    "empty": b"",
    "half": BEGIN + b"<Contents><Key>p/a",
    "json": b"{}",
}
INVALID_JSON = {
    "html": b"<html></html>",
    "empty": b"",
    "half": b'{"items": [{"name"',
    "list": b"[1]",
    "null": b"null",
    "text": b'"x"',
    "deep": b"[" * 100_000,
    "items": b'{"items": {"a": 1}}',
    "number": b'{"items": [1]}',
    "name": b'{"items": [{"name": {}, "size": "1"}]}',
}
MANY_HEADERS, LONG_HEADER = tuple((f"X-{number}", "v") for number in range(10_000)), (("X", "v" * 1_000_000),)
INVALID_LENGTHS = ("-1", "five", "", "5,5", "9" * 5000)


def make_cases() -> Iterator[HostileCase]:
    """Yield every case of hostile responses."""
    yield from _nonsense_cases()
    yield from _bomb_cases()
    yield from _header_cases()
    yield from _redirect_cases()


def answer_always(answer: ServerResponse) -> list[Responder]:
    """Answer every request with this response."""
    return [respond_always(answer)]


def _nonsense_cases() -> Iterator[HostileCase]:
    for name, body in INVALID_XML.items():  # the SDK treats unparsable bodies as a failing store
        codes = (69,) if name == "html" else (66, 69, 75)
        yield HostileCase(
            "listing that is none",
            name,
            "s3",
            answer_always(ServerResponse(200, XML, body)),
            codes,
            full_form_only=name != "html",
        )
    for name, body in INVALID_JSON.items():
        codes = (66, 69, 75)
        long = name in ("html", "empty", "half", "text")
        yield HostileCase(
            "listing that is none",
            name,
            "gs",
            answer_always(ServerResponse(200, JSON, body)),
            codes,
            full_form_only=long,
        )
    for name, body in {
        "deep": b"[" * 100_000,
        "text": b'{"error": "x"}',
        "list": b"[1]",
        "bytes": b"\xff\x9b2J",
    }.items():
        yield HostileCase("error that is none", name, "gs", answer_always(ServerResponse(400, JSON, body)), (69,))
    for body in (
        b"<Error><Code><x/></Code></Error>",
        "<Error><Code>A\u202eB</Code><Message>\u009b2J</Message></Error>".encode(),
    ):
        yield HostileCase(
            "error that is none", repr(body)[:30], "s3", answer_always(ServerResponse(400, XML, body)), (69,)
        )
    for name, (dtd, entity) in DTDS.items():
        page = s3_page([ListedObject("p/a")], head=dtd).body
        assert isinstance(page, bytes)
        body = page.replace(b"<Key>p/a", b"<Key>p/" + entity.encode())
        yield HostileCase(
            "XML with entities",
            name,
            "s3",
            answer_always(ServerResponse(200, XML, body)),
            (65, 69, 75),
            full_form_only=True,
        )


def _bomb_cases() -> Iterator[HostileCase]:
    def endless(begin: bytes) -> Iterator[bytes]:
        yield begin
        while True:
            yield b" " * 1_000_000

    fault = "listing that fills the memory"
    yield HostileCase(
        fault, "endless", "s3", [lambda _: ServerResponse(200, XML, endless(BEGIN))], (69,), full_form_only=True
    )
    yield HostileCase(
        fault,
        "endless",
        "gs",
        [lambda _: ServerResponse(200, JSON, endless(b'{"items": ['))],
        (69,),
        full_form_only=True,
    )
    packed = gzip.compress(b'{"items": [' + b" " * 300_000_000 + b"]}", 1)
    swelling = ServerResponse(200, (*JSON, ("Content-Encoding", "gzip")), packed)
    yield HostileCase(fault, "gzip", "gs", answer_always(swelling), (69,), full_form_only=True)

    def body(request: ServerRequest) -> ServerResponse:
        return ServerResponse(405) if request.method == "HEAD" else ServerResponse(200, (), endless(b""))

    for source in ("m", "m.tar"):
        yield HostileCase(
            "object without an end", source, "http", [body], (65,), source=source, args=("--max-bytes", "10M")
        )


def _header_cases() -> Iterator[HostileCase]:
    for scheme, source in (("s3", "p/"), ("gs", "p/"), ("http", "m")):
        for name, headers in (("10,000", MANY_HEADERS), ("1 MB", LONG_HEADER)):
            responders = answer_always(ServerResponse(200, headers, b"x"))
            yield HostileCase(
                "headers without bounds", name, scheme, responders, (75,), source=source, full_form_only=True
            )
    hello = {"m": b"hello"}
    for length in INVALID_LENGTHS:
        responders = answer_always(ServerResponse(200, (("Content-Length", length),), b"hello"))
        yield HostileCase("length that is none", length[:9], "http", responders, (0, 75), model=hello, source="m")
        tagged = answer_always(ServerResponse(200, (("Content-Length", length), ("ETag", '"1"')), b"hello"))
        yield HostileCase("length that is none", length[:9], "s3", tagged, (0, 65, 69, 75), model=hello, source="m")
    odd = {
        "Repr-Digest": "sha-256=:////:",
        "x-amz-checksum-crc32": "A",
        "ETag": '"\x9b2J"',
        "Last-Modified": "yesterday",
        "x-goog-hash": "crc32c=A,md5=\xff",
        "Content-Encoding": "gzip, gzip, nonsense",
        "Content-Range": f"bytes 0-{'9' * 5000}/5",
        "x-amz-checksum-type": "\xff",
    }
    for name, value in odd.items():
        for scheme in ("http", "s3"):
            base = (("ETag", '"1"'),) if name != "ETag" else ()
            responders = answer_always(ServerResponse(200, (*base, (name, value)), b"hello"))
            long = name == "Content-Range"
            yield HostileCase(
                "header that is nonsense",
                name,
                scheme,
                responders,
                (0, 65, 69, 75),
                model=hello,
                source="m",
                full_form_only=long,
            )


def _redirect_cases() -> Iterator[HostileCase]:
    for to in ("file:///etc/passwd", "s3://b/m", "ftp://h/m", "http://[::1", "\x1b[2J", "/m"):
        responders = answer_always(ServerResponse(302, (("Location", to),)))
        yield HostileCase("redirect to nowhere", repr(to), "http", responders, (66, 69, 75, 78), source="m")
    for name in ("a%00b", "a%ffb", "%2e%2e", "a%5cb", "a%0ab", "a%c2%9bb"):
        yield HostileCase(
            "address that names no file", name, "http", answer_always(ServerResponse(200, (), b"x")), source=name
        )
