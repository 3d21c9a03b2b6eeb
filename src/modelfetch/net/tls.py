"""TLS: the trusted certificates, the client certificate, and a socket for reads of many records in one call."""

import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Any

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

    A record holds at most 16 KiB, and ssl.SSLSocket spends three Python frames on each. An end without TLS's own
    close_notify is an error (RFC 8446, 6.1): anyone on the way could have cut the body short.
    """

    _late_error: OSError | None = None  # of a read that had received bytes before: raised by the next read

    def recv_into(self, buffer: "WriteableBuffer", nbytes: int | None = None, flags: int = 0) -> int:
        """Read into `buffer` until the buffer is full or the connection has ended; return the number of bytes.

        A small buffer gets the bytes of a single record at most: readers of a response's head must not wait for more.
        """
        if self._late_error is not None:
            error, self._late_error = self._late_error, None
            raise error
        view = memoryview(buffer).cast("B")[: nbytes or None]
        ssl_object = getattr(self, _SSL_OBJECT, None)
        if len(view) <= _MAX_RECORD or ssl_object is None or flags:
            return super().recv_into(buffer, nbytes, flags)
        received = 0
        try:
            while received < len(view) and (count := ssl_object.read(len(view) - received, view[received:])):
                received += count
        except OSError as error:  # a reset or a stall: the bytes before are good
            if not received:
                raise
            self._late_error = error
        return received

    def read(self, len: int = 1024, buffer: "WriteableBuffer | None" = None) -> Any:  # noqa: A002, ANN401  as ssl has it
        """See `ssl.SSLSocket.read`; raises SSLEOFError for an end without close_notify."""
        self.suppress_ragged_eofs = False
        return super().read(len, buffer)


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
