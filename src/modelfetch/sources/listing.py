"""What a store lists, checked before anything is made of it: servers may be broken, and may lie."""

from collections.abc import Callable

from modelfetch.errors import BudgetError, RefusedError, UnsafeNameError
from modelfetch.safe_paths import quote_path
from modelfetch.sources.base import Listing, RemoteObject

MAX_EMPTY_PAGES = 10_000  # in a row: both stores send some where much was deleted, S3 one for 1,000 keys


class ListingBuilder:
    """The objects and the folders below a prefix, as page after page tells of them."""

    def __init__(self, prefix: str, max_entries: int) -> None:
        """Begin with nothing.

        Args:
            prefix: what every key must begin with.
            max_entries: entries to accept.
        """
        self._prefix = prefix
        self._max_entries = max_entries
        self._objects: list[RemoteObject] = []
        self._folders: list[str] = []
        self._previous_count = 0  # entries, at the last page's end
        self._empty_pages = 0  # pages in a row
        self._tokens: set[int] = set()

    def add_entry(self, key: str, size: int, make_object: Callable[[str], RemoteObject]) -> None:
        """Take an entry. One that ends with a slash and is empty stands for a folder.

        Args:
            key: as the store spells it.
            size: in bytes.
            make_object: returns the object, from the path below the prefix.

        Raises:
            UnsafeNameError: the key does not begin with the prefix, or is the prefix itself and has content.
            BudgetError: there are too many.
            ValueError: the size is none.
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
        """Note that a page is over.

        Args:
            token: what the next page is to be asked for with.
            more: whether the store says that there is one.

        Raises:
            RefusedError: there is no way to it, or no end of them.
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
        """What was listed; None if there was no object."""
        if not self._objects:
            return None
        return Listing(tuple(self._objects), directory=True, folders=tuple(self._folders))

    @property
    def _entry_count(self) -> int:
        return len(self._objects) + len(self._folders)


def _listing_error(flaw: str) -> RefusedError:
    return RefusedError(f"The store's listing {flaw}.", hint="Check the endpoint; try again later.")
