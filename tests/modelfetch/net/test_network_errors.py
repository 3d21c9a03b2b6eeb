"""Network errors explained in plain words, without the URL that holds a signature."""

import errno
import socket
import ssl
from http.client import IncompleteRead

import pytest
import requests
from urllib3 import exceptions as u3

from modelfetch.errors import ConfigError, CredentialsError, ModelfetchError, RefusedError, TransientError
from modelfetch.net.network_errors import error_text, explain_network_error, host_of
from testkit.library_errors import CONNECTION, POOL, SECRET, URL, max_retry_error, untrusted_certificate


@pytest.mark.parametrize(
    ("error", "kind", "phrase"),
    [
        (
            max_retry_error(u3.NameResolutionError("store.invalid", CONNECTION, socket.gaierror(-2, "x"))),
            TransientError,
            "resolved",
        ),
        (max_retry_error(u3.NewConnectionError(CONNECTION, "refused")), TransientError, "broke the connection off"),
        (ConnectionRefusedError(111, "refused"), TransientError, "nothing listens"),
        (max_retry_error(u3.ConnectTimeoutError(CONNECTION, "x")), TransientError, "in time"),
        (max_retry_error(u3.ReadTimeoutError(POOL, URL, "x")), TransientError, "no byte for 5 s"),
        (u3.ReadTimeoutError(POOL, URL, "x"), TransientError, "no byte for 5 s"),
        (TimeoutError("timed out"), TransientError, "no byte for 5 s"),
        (max_retry_error(u3.SSLError(untrusted_certificate())), RefusedError, "self-signed certificate"),
        (max_retry_error(u3.SSLError(ssl.SSLError(1, "WRONG_VERSION_NUMBER"))), TransientError, "TLS"),
        (ssl.SSLEOFError(8, "eof"), TransientError, "TLS"),
        (max_retry_error(u3.ProxyError("x", OSError("y"))), TransientError, "proxy"),
        (u3.ProxyError("x", OSError("Tunnel connection failed: 407 Who?")), CredentialsError, "proxy"),
        (u3.ProxyError("x", OSError("Tunnel connection failed: 403 No")), RefusedError, "proxy"),
        (u3.ProxyError("x", OSError("Tunnel connection failed: 502 Bad")), TransientError, "proxy"),
        (max_retry_error(u3.ResponseError("too many redirects")), RefusedError, "redirects in a loop"),
        (u3.ProtocolError("broken", ConnectionResetError(104, "reset")), TransientError, "ConnectionResetError"),
        (u3.ProtocolError("broken", IncompleteRead(b"x", 5)), TransientError, "broke the connection off"),
        (u3.IncompleteRead(1, 5), TransientError, "broke the connection off"),
        (u3.InvalidHeader("x"), TransientError, "broke the connection off"),
        (u3.LocationParseError("x"), ConfigError, "not an address"),
        (u3.LocationValueError("no host"), ConfigError, "not an address"),
        (ValueError("label too long"), ConfigError, "not an address"),
        (OSError(errno.ENETUNREACH, "unreachable"), TransientError, "broke the connection off"),
        (BrokenPipeError(32, "pipe"), TransientError, "BrokenPipeError"),
        (requests.ConnectionError(max_retry_error(u3.NewConnectionError(CONNECTION, "x"))), TransientError, "broke"),
        (
            requests.exceptions.SSLError(max_retry_error(u3.SSLError(untrusted_certificate()))),
            RefusedError,
            "self-signed",
        ),
        (requests.ReadTimeout(u3.ReadTimeoutError(POOL, URL, "x")), TransientError, "no byte"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_network_error_is_explained_without_the_url(error: Exception, kind: type[ModelfetchError], phrase: str) -> None:
    """Message names the host and the failure, never the URL; a hint names the next step."""
    explained = explain_network_error(error, "store.invalid", 5.0)

    assert type(explained) is kind
    assert "store.invalid" in explained.message
    assert phrase in explained.message
    assert explained.hint
    assert SECRET not in f"{explained.message} {explained.hint}"


@pytest.mark.parametrize(
    "error",
    [
        ValueError(f"Invalid header value b'{SECRET}\n'"),
        requests.exceptions.InvalidHeader(f"Invalid character in header value: {SECRET}"),
        UnicodeEncodeError("latin-1", SECRET, 0, 1, "x"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_unsendable_credential_is_a_config_error_that_hides_the_credential(error: Exception) -> None:
    """Exit code 78 with a hint at the line break, although http.client quotes the credential."""
    explained = explain_network_error(error, "store.invalid", 5.0)

    assert type(explained) is ConfigError
    assert "line break" in explained.hint
    assert SECRET not in f"{explained.message} {explained.hint}"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://h:1/x", "h:1"),
        ("https://me:s3cr3t@h:1/x", "h:1"),
        ("https://me:s3@cr3t@[::1]:1", "[::1]:1"),
        ("nonsense", "the endpoint"),
        ("http://[::1", "the endpoint"),
        ("", "the endpoint"),
    ],
)
def test_host_of_leaves_out_user_name_and_password(url: str, shown: str) -> None:
    """Even of a URL that cannot be parsed no credentials are shown."""
    assert host_of(url) == shown


def test_error_text_is_one_line_without_credentials() -> None:
    """Line breaks become spaces, the full stop goes, and user names and passwords are masked."""
    assert error_text(ValueError("Failed:\n to reach http://me:s3cr3t@h:1/x.")) == "Failed: to reach http://***@h:1/x"
