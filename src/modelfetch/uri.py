"""Address of a model or target, as a value. No I/O; each kind of source parses its own addresses (`sources/`)."""

import re
from typing import NamedTuple

from modelfetch.errors import UsageError

FORMS = "Use s3://bucket/path, gs://bucket/path, https://host/path, file:///path or a plain path."

_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*)://")
_UNEXPANDED = re.compile(r"\$\([A-Za-z_][A-Za-z0-9_.-]*\)|\$\{[A-Za-z_][A-Za-z0-9_]*\}")
_USER_INFO = re.compile(r"^[^?#]*@", re.DOTALL)


class ModelURI(NamedTuple):
    """Address of a source or target.

    Attributes:
        scheme: kind of store, in lower case.
        bucket: bucket, or host for http(s); empty for files.
        key: object key or prefix, as spelled by the store; absolute path for files.
        version: requested version (S3 version id, GCS generation), or None.
        url: full URL to fetch, for http(s) only; the query may hold secrets.
    """

    scheme: str
    bucket: str
    key: str
    version: str | None = None
    url: str = ""

    @property
    def is_directory(self) -> bool:
        """Whether only a directory can be meant: a trailing slash, or a whole bucket."""
        return not self.key or self.key.endswith("/")

    @property
    def name(self) -> str:
        """Return the last path segment: the file name of a single object."""
        return self.key.rstrip("/").rpartition("/")[2]

    def __str__(self) -> str:
        """Return the address without version and query, fit for logs and receipts."""
        authority = f"{self.bucket}/" if self.bucket else ""  # a file's key is absolute already
        return f"{self.scheme}://{authority}{self.key}"


def split_scheme(text: str) -> tuple[str, str]:
    """Split `SCHEME://rest` into the scheme in lower case and the rest; the scheme of a plain path is empty."""
    found = _SCHEME.match(text)
    return (found[1].lower(), text[found.end() :]) if found else ("", text)


def check_text(text: str) -> None:
    """Refuse an address that no receipt could name.

    Raises:
        UsageError: a NUL character, or characters that UTF-8 cannot hold.
    """
    if "\0" in text:
        raise UsageError("The source holds a NUL character.", hint=FORMS)
    if text != text.encode(errors="replace").decode():
        raise UsageError(f"The source {text!r} is not valid UTF-8.", hint="A receipt could not name it: rename it.")


def find_argument_flaw(text: str) -> tuple[str, str] | None:
    """Find what makes an address or path an accident, as of a variable that was not expanded.

    Returns:
        The flaw, as the end of a sentence, and a hint; None for a text without a flaw.
    """
    if not text.strip():
        return "is empty", "An unset variable leaves an empty argument: set the variable."
    if text.endswith(("\n", "\r")):
        return "ends with a line break", "Remove the line break: `echo` and editors add one, `printf` does not."
    if unexpanded := _UNEXPANDED.search(text):
        return (
            f"holds the variable {unexpanded[0]}, which was not expanded",
            "Kubernetes expands $(NAME) in args if the container's env or envFrom defines NAME.",
        )
    return None


def show_address(address: str) -> str:
    """Return an address or path for a message: quoted if spaces at an end would go unnoticed."""
    return address if address == address.strip() else repr(address)


def mask_uri(text: str, *, secret_query: bool) -> str:
    """Return an address for messages, valid or not, without user name, password and secret query.

    Args:
        text: address as given.
        secret_query: whether the query may authorise (a signed URL); elsewhere a `?` starts a version or belongs to
            the name.
    """
    found = _SCHEME.match(text)
    if not found:
        return text
    rest = text[found.end() :]
    if secret_query:
        return found[0] + re.sub(r"\?.*", "?***", _USER_INFO.sub("***@", rest), flags=re.DOTALL)
    bucket, slash, key = rest.partition("/")
    return f"{found[0]}{_USER_INFO.sub('***@', bucket)}{slash}{key}"
