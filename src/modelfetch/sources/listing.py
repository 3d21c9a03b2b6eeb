"""Checks of a store's listing, page by page: servers may be broken or hostile."""

from collections.abc import Callable

from modelfetch.errors import BudgetError, RefusedError, UnsafeNameError
from modelfetch.safe_paths import quote_path
from modelfetch.sources.base import Listing, RemoteObject

MAX_EMPTY_PAGES = 10_000  # in a row; S3 and GCS send empty pages after mass deletion, S3 one per 1,000 keys


class ListingBuilder:
    """Builder of a listing: objects and folders below a prefix, added page by page."""

    def __init__(self, prefix: str, max_entries: int) -> None:
        """Start an empty listing.

        Args:
            prefix: required start of every key.
            max_entries: largest number of entries.
        """
        self._prefix = prefix
        self._max_entries = max_entries
        self._objects: list[RemoteObject] = []
        self._folders: list[str] = []
        self._previous_count = 0  # entries at the end of the previous page
        self._empty_pages = 0  # pages in a row
        self._tokens: set[int] = set()

    def add_entry(self, key: str, size: int, make_object: Callable[[str], RemoteObject]) -> None:
        """Add an entry; an empty entry with a slash at the end is a folder.

        Args:
            key: object key, as spelled by the store.
            size: size in bytes.
            make_object: returns the object for a path below the prefix.

        Raises:
            UnsafeNameError: the key does not begin with the prefix, or is the prefix itself and has content.
            BudgetError: the listing has more than `max_entries` entries.
            ValueError: the size is negative.
        """
        if size < 0:
            raise ValueError(f"{key!r} has {size} bytes")
        if not key.startswith(self._prefix):
            raise UnsafeNameError(
                f"The store lists {quote_path(key)}, which does not begin with {quote_path(self._prefix)}.",
                hint="Check the endpoint: no store lists what it was not asked for.",
            )
        path = key.removeprefix(self._prefix)
        if path.endswith("/") and not size:
            self._folders.append(path[:-1])
        elif path:
            self._objects.append(make_object(path))
        elif size:
            raise UnsafeNameError(
                f"The key {quote_path(key)} has {size} bytes, but names the directory itself.",
                hint="Remove the object, or give it another name.",
            )
        if self._entry_count > self._max_entries:
            raise BudgetError(
                f"There are more than {self._max_entries} objects below {quote_path(self._prefix)}.",
                hint="Name a directory further down, or raise MODELFETCH_MAX_FILES.",
            )

    def end_page(self, token: object, *, more: bool) -> None:
        """End a page; refuse a listing that breaks off or never ends.

        Args:
            token: continuation token of the next page.
            more: whether the store announces a next page.

        Raises:
            RefusedError: the token is missing or repeated, or too many pages are empty.
        """
        if not more:
            return
        self._empty_pages = self._empty_pages + 1 if self._entry_count == self._previous_count else 0
        self._previous_count = self._entry_count
        if not token:
            raise _listing_error("breaks off: another page is to come, but there is no token to ask for it with")
        if hash(token) in self._tokens or self._empty_pages > MAX_EMPTY_PAGES:
            raise _listing_error("goes round in a circle, or has no end")
        self._tokens.add(hash(token))

    def build_listing(self) -> Listing | None:
        """Return the listing; None without any object."""
        if not self._objects:
            return None
        return Listing(tuple(self._objects), directory=True, folders=tuple(self._folders))

    @property
    def _entry_count(self) -> int:
        return len(self._objects) + len(self._folders)


def _listing_error(flaw: str) -> RefusedError:
    return RefusedError(f"The store's listing {flaw}.", hint="Check the endpoint; try again later.")
