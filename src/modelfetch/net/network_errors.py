"""Network failures explained: a ModelfetchError for each, without the request's URL, which may hold a signature."""

import re
import ssl
from http.client import HTTPException
from urllib.parse import urlsplit

import urllib3

from modelfetch.errors import ConfigError, CredentialsError, ModelfetchError, RefusedError, TransientError

# Everything that a request, or reading its body, may raise.
NETWORK_ERRORS = (urllib3.exceptions.HTTPError, HTTPException, OSError, ValueError)
CERTIFICATES_HINT = "Check AWS_CA_BUNDLE, REQUESTS_CA_BUNDLE and SSL_CERT_FILE."
PROXY_HINT = "Check HTTPS_PROXY and HTTP_PROXY: http://host:port or http://user:password@host:port."
_USER_INFO = re.compile(r"//[^\s/'\"`]*@")
_TUNNEL_STATUS = re.compile(r"Tunnel connection failed: (\d{3})")
_MAX_ERROR_TEXT = 500  # characters
# Exceptions of requests, which Google's SDK uses, are known by name only: importing requests for its types is too slow.
_INVALID_ADDRESS_ERRORS = {
    "LocationParseError", "LocationValueError", "URLSchemeUnknown", "InvalidURL", "InvalidSchema", "MissingSchema",
    "URLRequired",
}  # fmt: skip
_INVALID_PROXY_ERRORS = {"InvalidProxyURL", "ProxySchemeUnknown", "ProxySchemeUnsupported"}


def host_of(url: str, *, or_else: str = "the endpoint") -> str:
    """Return a URL's host and port for messages, without the user name and password that a URL may hold."""
    try:
        netloc = urlsplit(url).netloc
    except ValueError:
        netloc = ""
    return netloc.rpartition("@")[2] or or_else


def error_text(error: object) -> str:
    """Return an SDK error's text as one line: no full stop, and no user names and passwords in URLs."""
    return _USER_INFO.sub("//***@", " ".join(str(error).split()))[:_MAX_ERROR_TEXT].rstrip(".: ")


def explain_network_error(error: BaseException, host: str, stall_timeout: float) -> ModelfetchError:
    """Return the ModelfetchError with the reason why `host` was not reached or broke off.

    Args:
        error: the exception of urllib3, http.client, requests, ssl or socket, with its causes.
        host: name of the server for the message; requested URLs are left out because of their signatures.
        stall_timeout: seconds without a byte before the connection was abandoned.
    """
    causes = _collect_causes(error)
    untrusted = next((cause for cause in causes if isinstance(cause, ssl.SSLCertVerificationError)), None)
    if untrusted is not None:
        return RefusedError(
            f"The certificate of {host} is not trusted: {untrusted.verify_message}.",
            hint="Give the authority's certificate with AWS_CA_BUNDLE, REQUESTS_CA_BUNDLE or SSL_CERT_FILE.",
        )
    explained = _explain_misconfiguration(causes, host) or _explain_proxy_refusal(causes, host)
    if explained is not None:
        return explained
    if _find_cause(causes, urllib3.exceptions.ResponseError) or "TooManyRedirects" in _class_names(causes):
        return RefusedError(f"{host} redirects in a loop.", hint="Check the endpoint and the address.")
    return TransientError(_describe_failure(causes, host, stall_timeout), hint=_choose_hint(causes))


def _explain_misconfiguration(causes: list[BaseException], host: str) -> ModelfetchError | None:
    """Return the error for a request impossible with this configuration; None for any other failure."""
    names = _class_names(causes)
    # The only files that a connection needs are certificates; a firewall's EPERM comes with a NewConnectionError.
    missing = _find_cause(causes, FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError)
    empty = any(getattr(cause, "reason", "") == "NO_CERTIFICATE_OR_CRL_FOUND" for cause in causes)
    if empty or (missing and "NewConnectionError" not in names):
        return ConfigError("The certificates to trust or to show cannot be loaded.", hint=CERTIFICATES_HINT)
    if _has_unsendable_header(causes):
        return ConfigError(
            "A credential holds a line break, or another character that cannot be sent.",
            hint="Look for a line break in AWS_ACCESS_KEY_ID, AWS_SESSION_TOKEN or MODELFETCH_BEARER_TOKEN.",
        )
    if names & _INVALID_PROXY_ERRORS:
        return ConfigError(f"The proxy on the way to {host} has an address that makes no sense.", hint=PROXY_HINT)
    invalid = _find_cause(causes, ValueError) and not _find_cause(causes, OSError, urllib3.exceptions.ProtocolError)
    if names & _INVALID_ADDRESS_ERRORS or invalid:
        return ConfigError(
            f"{host!r} is not an address that can be connected to.", hint="Check the endpoint's URL, and HTTPS_PROXY."
        )
    return None


def _has_unsendable_header(causes: list[BaseException]) -> bool:
    """Return whether HTTP cannot carry a header's value; http.client tells by the text of its error alone."""
    encodings = (cause.encoding for cause in causes if isinstance(cause, UnicodeEncodeError))
    return (
        "latin-1" in encodings
        or any(type(cause).__name__ == "InvalidHeader" and isinstance(cause, ValueError) for cause in causes)
        or any(isinstance(cause, ValueError) and str(cause).startswith("Invalid header value") for cause in causes)
    )


def _explain_proxy_refusal(causes: list[BaseException], host: str) -> ModelfetchError | None:
    """Return the error for a proxy that opens no tunnel; http.client has the proxy's status in the text alone."""
    texts = (str(cause) for cause in causes if isinstance(cause, OSError))
    refusal = next((match for text in texts if (match := _TUNNEL_STATUS.search(text))), None)
    if refusal is None or refusal[1].startswith("5"):
        return None
    if refusal[1] == "407":
        return CredentialsError(f"The proxy on the way to {host} wants a name and a password.", hint=PROXY_HINT)
    return RefusedError(
        f"The proxy on the way to {host} does not let it through (HTTP {refusal[1]}).",
        hint="Have the host allowed there, or name it in NO_PROXY.",
    )


def _describe_failure(causes: list[BaseException], host: str, stall_timeout: float) -> str:
    """Return the message for a failure that another try may heal."""
    names = " ".join(type(cause).__name__ for cause in causes)
    if "Proxy" in names:
        return f"The proxy on the way to {host} cannot be reached, or failed."
    if "gaierror" in names or "NameResolution" in names:
        return f"The name of {host} cannot be resolved."
    if _find_cause(causes, ConnectionRefusedError):
        return f"{host} refuses the connection: nothing listens there."
    if "ConnectTimeout" in names or "ConnectionTimeout" in names:
        return f"{host} did not answer the connection in time."
    if "Timeout" in names:
        return f"{host} sent no byte for {stall_timeout:g} s."
    if any(getattr(cause, "reason", "") == "WRONG_VERSION_NUMBER" for cause in causes):
        return f"{host} does not speak TLS (is it http, not https?), or something on the way broke it."
    if "SSL" in names:
        return f"The TLS connection to {host} broke: {type(causes[-1]).__name__}."
    return f"{host} broke the connection off ({type(causes[-1]).__name__})."


def _choose_hint(causes: list[BaseException]) -> str:
    """Return the next step: the configuration if no connection was made, else patience."""
    if any("Connect" in name for name in _class_names(causes)):
        return "Check the endpoint (AWS_ENDPOINT_URL, STORAGE_EMULATOR_HOST), the network and HTTPS_PROXY/NO_PROXY."
    return "Try again later; if it stays so, look at the network between here and the store."


def _find_cause(causes: list[BaseException], *kinds: type[BaseException]) -> BaseException | None:
    """Return the outermost cause that is an instance of `kinds`."""
    return next((cause for cause in causes if isinstance(cause, kinds)), None)


def _class_names(causes: list[BaseException]) -> set[str]:
    """Return the class names of all causes."""
    return {type(cause).__name__ for cause in causes}


def _collect_causes(error: BaseException) -> list[BaseException]:
    """Return the error and all causes, outermost first: SDKs and urllib3 keep a cause in different attributes."""
    causes: list[BaseException] = []
    candidates: list[object] = [error]
    while candidates:
        candidate = candidates.pop(0)
        if isinstance(candidate, BaseException) and candidate not in causes:
            causes.append(candidate)
            candidates += [
                getattr(candidate, "reason", None),
                candidate.__cause__,
                candidate.__context__,
                *candidate.args,
                *getattr(candidate, "kwargs", {}).values(),
            ]
    return causes
