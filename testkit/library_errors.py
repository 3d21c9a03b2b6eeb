"""One exception of every class that a library may raise, found by inspecting the library's modules."""

import inspect
import json
import socket
import ssl
import string
from collections.abc import Callable
from types import ModuleType
from typing import Any

import botocore.exceptions as sdk
import requests
import urllib3
from google.api_core import exceptions as api
from google.resumable_media.common import InvalidResponse
from urllib3 import exceptions as u3

SECRET = "s3cr3t-signature"  # no message may show this secret
URL = f"http://store.invalid/b/k?X-Amz-Signature={SECRET}"
POOL = urllib3.HTTPConnectionPool("store.invalid")
CONNECTION = urllib3.connection.HTTPConnection("store.invalid")


def find_exceptions(module: ModuleType, defined_in: str = "") -> dict[str, type[Exception]]:
    """Return the exceptions defined in a module by name, without warnings and aliases.

    Args:
        module: to inspect.
        defined_in: `__module__` of the exceptions, if another.
    """
    home = defined_in or module.__name__
    return {
        kind.__name__: kind
        for _, kind in inspect.getmembers(module, inspect.isclass)
        if issubclass(kind, Exception) and not issubclass(kind, Warning) and kind.__module__ == home
    }


def google_response(status: int, message: str = "Because.", reason: str = "", **headers: str) -> requests.Response:
    """Return a response of Google's API as its SDK keeps responses."""
    response = requests.Response()
    response.status_code = status
    response.headers.update(headers)
    error = {"message": message, **({"errors": [{"message": message, "reason": reason}]} if reason else {})}
    response._content = json.dumps({"error": error}).encode()
    response.request = requests.Request("GET", URL).prepare()
    return response


def s3_refusal(code: str, status: int, operation: str = "GetObject", message: str = "Because.", **headers: str) -> Any:
    """Return an S3 error response as botocore raises it."""
    answer: Any = {
        "Error": {"Code": code, "Message": message},
        "ResponseMetadata": {"HTTPStatusCode": status, "HTTPHeaders": headers},
    }
    return sdk.ClientError(answer, operation)


def untrusted_certificate() -> ssl.SSLCertVerificationError:
    """Return a certificate failure as OpenSSL raises it."""
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_message = "self-signed certificate"
    return error


def max_retry_error(reason: Exception) -> u3.MaxRetryError:
    """Wrap an error of a connection pool as urllib3 does."""
    return u3.MaxRetryError(POOL, URL, reason)


_retry_error: Any = api.RetryError  # its constructor has no types
_SPECIAL: dict[type[Exception], Callable[[], Exception]] = {
    sdk.WaiterError: lambda: sdk.WaiterError("waiter", "because", {}),
    u3.MaxRetryError: lambda: max_retry_error(OSError("x")),
    u3.NewConnectionError: lambda: u3.NewConnectionError(CONNECTION, "refused"),
    u3.NameResolutionError: lambda: u3.NameResolutionError("store.invalid", CONNECTION, socket.gaierror(-2, "x")),
    u3.ConnectTimeoutError: lambda: u3.ConnectTimeoutError(CONNECTION, "x"),
    u3.ReadTimeoutError: lambda: u3.ReadTimeoutError(POOL, URL, "x"),
    u3.HostChangedError: lambda: u3.HostChangedError(POOL, URL),
    u3.IncompleteRead: lambda: u3.IncompleteRead(1, 5),
    u3.InvalidChunkLength: lambda: u3.InvalidChunkLength(urllib3.HTTPResponse(), b"x"),
    u3.ProxyError: lambda: u3.ProxyError("x", OSError("y")),
    requests.exceptions.JSONDecodeError: lambda: requests.exceptions.JSONDecodeError("x", "y", 0),
    api.RetryError: lambda: _retry_error("x", requests.ConnectionError(URL)),
    ssl.SSLCertVerificationError: untrusted_certificate,
}
_ARGUMENTS: tuple[tuple[object, ...], ...] = (("x",), (), ("x", "y"), ("x", "y", "z"), (b"x", 5))


def make_error(kind: type[Exception]) -> Exception:
    """Construct an exception of this class.

    Raises:
        LookupError: the constructor's arguments are unknown; add the class to `_SPECIAL`.
    """
    if kind in _SPECIAL:
        return _SPECIAL[kind]()
    if issubclass(kind, sdk.ClientError):
        return kind(s3_refusal("SomethingNew", 400).response, "GetObject")
    if issubclass(kind, InvalidResponse):
        error: Exception = kind(google_response(503), "x")
        return error
    fields = {name.split(".")[0] for _, name, _, _ in string.Formatter().parse(getattr(kind, "fmt", "")) if name}
    for each in _ARGUMENTS:
        named: dict[str, Any] = dict.fromkeys(fields, "x")
        try:
            error = kind(**named) if fields and not each else kind(*each)
            str(error)
        except Exception:  # noqa: BLE001  the constructor needs other arguments
            continue
        return error
    raise LookupError(f"unknown arguments of {kind}")
