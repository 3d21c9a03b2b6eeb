import pytest

from modelfetch.archive.symlinks import MAX_HOPS, resolve_symlinks
from modelfetch.errors import ArchiveError


class CountingSet(set[str]):
    """Set that counts membership tests."""

    lookups = 0

    def __contains__(self, name: object) -> bool:
        self.lookups += 1
        return super().__contains__(name)


def test_shared_chain_of_symlinks_is_resolved_once() -> None:
    """Without the cache, some 60 kB of packed archive would take an hour."""
    detour = "d/../" * 800
    links = {f"c{number}": f"{detour}c{number + 1}" for number in range(MAX_HOPS - 2)}
    links |= {f"c{MAX_HOPS - 2}": "d/file", **{f"l{number}": "c0" for number in range(10_000)}}
    directories = CountingSet({"d"})

    ends = resolve_symlinks(links, {"d/file"}, directories)

    assert set(ends.values()) == {"d/file"}
    assert directories.lookups < sum(target.count("/") + 1 for target in links.values())


@pytest.mark.parametrize("length", [MAX_HOPS, MAX_HOPS + 1])
def test_chain_of_40_symlinks_is_resolved_and_41_are_refused(length: int) -> None:
    """The limit holds from the far end and from the near end of the chain."""
    links = {f"c{number:02}": f"c{number + 1:02}" for number in range(length - 1)} | {f"c{length - 1:02}": "file"}
    for order in (1, -1):
        names = dict(list(links.items())[::order])
        if length <= MAX_HOPS:
            assert set(resolve_symlinks(names, {"file"}, set()).values()) == {"file"}
        else:
            with pytest.raises(ArchiveError, match="round in a circle"):
                resolve_symlinks(names, {"file"}, set())
