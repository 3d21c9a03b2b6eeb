"""TLS: the trusted certificates, the client certificate, and a socket for reads of many records in one call."""

import contextlib
import ssl
from pathlib import Path
from typing import TYPE_CHECKING

from modelfetch.errors import ConfigError
from modelfetch.net.network_errors import CERTIFICATES_HINT

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_MAX_RECORD = 16 * 1024  # bytes in one TLS record (RFC 8446, 5.1)
# Private attribute of ssl.SSLSocket: the OpenSSL object of the connection. SSLSocket.read calls it with one more
# frame. Tried on CPython 3.11, 3.12 and 3.13; a Python without the attribute reads record by record.
_SSL_OBJECT = "_sslobj"


class BulkReadSocket(ssl.SSLSocket):
    """TLS socket for reads that fill a large buffer in one call.

    A record holds at most 16 KiB, and ssl.SSLSocket spends three Python frames on each.
    """

    def recv_into(self, buffer: "WriteableBuffer", nbytes: int | None = None, flags: int = 0) -> int:
        """Read into `buffer` until the buffer is full or the connection has ended; return the number of bytes.

        A small buffer gets the bytes of a single record at most: readers of a response's head must not wait for more.
        """
        view = memoryview(buffer).cast("B")[: nbytes or None]
        ssl_object = getattr(self, _SSL_OBJECT, None)
        if len(view) <= _MAX_RECORD or ssl_object is None or flags:
            return super().recv_into(buffer, nbytes, flags)
        received = 0
        with contextlib.suppress(ssl.SSLEOFError):  # as SSLSocket does: the reader knows the stated length
            while received < len(view) and (count := ssl_object.read(len(view) - received, view[received:])):
                received += count
        return received


def make_tls_context(*, ca_bundle: str | None, verify: bool, client_cert: str | None) -> ssl.SSLContext:
    """Return the TLS context for all connections.

    Args:
        ca_bundle: file of trusted certificates; None for the system's, or certifi's where the system has none.
        verify: whether certificates are checked at all.
        client_cert: file of the certificate (with key) to show to servers.

    Raises:
        ConfigError: a file cannot be read, or holds no certificates.
    """
    try:
        context = ssl.create_default_context(cafile=ca_bundle)
        context.sslsocket_class = BulkReadSocket
        if client_cert:
            context.load_cert_chain(client_cert)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"The certificates in {ca_bundle or client_cert} cannot be loaded: {error}.", hint=CERTIFICATES_HINT
        ) from error
    if not ca_bundle and not context.get_ca_certs() and (bundled := _find_certifi_bundle()):
        context.load_verify_locations(bundled)
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _find_certifi_bundle() -> str | None:
    """Return the path of certifi's certificates, for images without a system's store; None without certifi."""
    try:
        import certifi  # noqa: PLC0415  needed only where the system has no certificates
    except ImportError:
        return None
    return certifi.where() if Path(certifi.where()).exists() else None
