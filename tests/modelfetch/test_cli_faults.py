"""The fault campaign, first form: whatever the way between store and volume does, the right bytes or nothing.

One large object, a directory and a streamed archive, on both stores. Faults that may heal are survived without the
loss of what had arrived; those that may not end with their code, and publish nothing.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from rigs import tree
from rigs.cli import Cli, Run
from rigs.faultproxy import FaultProxy
from rigs.stores import GCS, S3, S3Bucket, Store

Proxied = Callable[[str], FaultProxy]
LARGE = 40_000_000
FILES = 20


@cache
def large() -> bytes:
    """The content of the one large object."""
    return tree.noise(LARGE)


@cache
def files() -> dict[str, bytes]:
    """A directory's: files of 100 kB and one that is empty."""
    return {f"{number:02}/file": tree.noise(100_000 if number else 0, number) for number in range(FILES)}


@cache
def archive() -> bytes:
    """The directory as a tar.gz of 2 MB."""
    return tree.tar_gz(files())


@dataclass(frozen=True)
class Case:
    """A model in a store, and which of its objects things happen to.

    Attributes:
        uri: the whole model.
        victim: the object whose download goes wrong.
        size: the victim's.
        expected: what must be there in the end.
    """

    store: Store
    uri: str
    victim: str
    size: int
    expected: dict[str, bytes]

    def rule(self, **what: Any) -> dict[str, Any]:
        """A rule for downloads of the victim."""
        return {**self.store.downloads(self.victim), **what}


@pytest.fixture(params=["object", "directory", "archive"])
def shape(request: pytest.FixtureRequest) -> str:
    """What the model is."""
    return str(request.param)


def stocked(store: Store, shape: str) -> Case:
    """Store a model of a shape."""
    if shape == "object":
        store.put("large.bin", large())
        return Case(store, store.uri("large.bin"), "large.bin", LARGE, {"large.bin": large()})
    if shape == "archive":
        store.put("model.tar.gz", archive())
        return Case(store, store.uri("model.tar.gz"), "model.tar.gz", len(archive()), files())
    for name, data in files().items():
        store.put(f"dir/{name}", data)
    return Case(store, store.uri("dir/"), "dir/07/file", 100_000, files())


@pytest.fixture(scope="module", params=["s3", "gcs"])
def shelf(request: pytest.FixtureRequest) -> Iterator[dict[str, Case]]:
    """Models of each shape, on each store; tests share them and leave them as they are."""
    server: S3 | GCS = request.getfixturevalue(request.param)
    with server.new_bucket() as bucket:
        yield {shape: stocked(bucket, shape) for shape in ("object", "directory", "archive")}


@pytest.fixture
def case(shape: str, shelf: dict[str, Case]) -> Case:
    """One of the shared models."""
    return shelf[shape]


@pytest.fixture
def own_case(shape: str, store: Store) -> Case:
    """A model that the test may change."""
    return stocked(store, shape)


def pull(modelfetch: Cli, case: Case, proxy: FaultProxy, dest: Path, **env: str) -> Run:
    """Pull the model through the proxy, with a stall time-out of a second."""
    patience = {"MODELFETCH_STALL_TIMEOUT": "1s", **env}
    return modelfetch(
        "pull", case.uri, f"{dest}/", "--output", "json", env={**case.store.env_at(proxy.url), **patience}, timeout=120
    )


def assert_arrived(run: Run, case: Case, dest: Path) -> None:
    """All of the model, with a receipt that says so, and nothing else."""
    assert run.code == 0, run.stderr
    found = tree.read(dest)
    assert found.keys() == case.expected.keys()
    assert [name for name, data in case.expected.items() if found[name] != data] == []
    assert {file["path"]: file["sha256"] for file in run.receipt["files"]} == {
        name: tree.sha256(data) for name, data in case.expected.items()
    }


def assert_nothing(run: Run, dest: Path, code: int, reason: str) -> None:
    """Not a byte where an app would look for the model."""
    assert (run.code, run.error["reason"]) == (code, reason), run.stderr
    assert [name for name in tree.read(dest) if not name.startswith(tree.STAGING + "/")] == []
    assert not list(dest.glob("*" + tree.RECEIPT))


BREAKING: list[dict[str, Any]] = [
    {"reset": True},
    {"cut_after": 60_000},
    {"cut_after": 30_000, "clean": True},
    {"cut_after": 30_000, "clean": True, "drop": ("Content-Length",)},
]
STALLING: list[dict[str, Any]] = [{"stall_after": 60_000}, {"mute": True}, {"trickle": (30_000, 0.001)}]
REFUSING: list[dict[str, Any]] = [
    {"status": 503, "headers": {"Retry-After": "1"}},
    {"status": 429},
    {"status": 500},
    {"status": 401},
    {"redirect": True},
]
LYING: list[dict[str, Any]] = [
    {"flip_at": 50_000},
    {"headers": {"Content-Range": "bytes 5-9/10"}, "ranged": True},
    {"headers": {"ETag": '"0"', "X-Goog-Generation": "1"}},
    {"drop": ("Content-Length", "ETag", "X-Goog-Hash", "X-Goog-Generation", "X-Amz-Checksum-Crc32"), "extra": b"more"},
]
HEALING = {"breaking": BREAKING, "stalling": STALLING, "refusing": REFUSING, "lying": LYING}


@pytest.mark.parametrize("faults", HEALING.values(), ids=HEALING.keys())
@pytest.mark.parametrize("shape", ["object", "archive"])
def test_what_may_heal_is_survived(
    modelfetch: Cli, case: Case, fault_proxy: Proxied, tmp_path: Path, faults: list[dict[str, Any]]
) -> None:
    """One trouble after the other befalls the same object; in the end it is there, whole."""
    proxy = fault_proxy(case.store.endpoint)
    rules = [proxy.add(**case.rule(**fault)) for fault in faults]

    run = pull(modelfetch, case, proxy, tmp_path)

    assert_arrived(run, case, tmp_path)
    ranges = any(request.range for request in proxy.came(**case.store.downloads(case.victim)))
    assert [rule for rule in rules if not rule.used and not (rule.ranged and not ranges)] == []


@pytest.mark.parametrize("shape", ["directory"])
def test_a_directory_survives_everything_at_once(
    modelfetch: Cli, case: Case, fault_proxy: Proxied, tmp_path: Path
) -> None:
    """Each file has its own trouble."""
    proxy = fault_proxy(case.store.endpoint)
    faults = [fault for group in HEALING.values() for fault in group if not fault.get("ranged")]
    downloads = [case.store.downloads(f"dir/{number:02}/file") for number in range(1, FILES)]
    rules = [proxy.add(**download, **fault) for download, fault in zip(downloads, faults, strict=False)]

    run = pull(modelfetch, case, proxy, tmp_path)

    assert_arrived(run, case, tmp_path)
    assert [rule for rule in rules if not rule.used] == []


def test_a_broken_request_goes_on_where_it_stopped(
    modelfetch: Cli, shelf: dict[str, Case], fault_proxy: Proxied, tmp_path: Path
) -> None:
    """The bytes that had come are not fetched again."""
    store = shelf["object"].store
    proxy = fault_proxy(store.endpoint)
    proxy.add(**store.downloads("large.bin"), cut_after=5_000_000, times=3)

    run = modelfetch.ok("pull", store.uri("large.bin"), tmp_path / "m", "--output", "json", env=store.env_at(proxy.url))

    assert (tmp_path / "m").read_bytes() == large()
    assert proxy.sent(store.downloads("large.bin")["path"]) <= LARGE + 300_000  # what was on its way when it broke
    assert run.receipt["retries"] == 3


def test_a_range_answered_with_the_whole_object_is_seen_through(
    modelfetch: Cli, shelf: dict[str, Case], fault_proxy: Proxied, tmp_path: Path
) -> None:
    """200 for 206, always, as some S3 servers do."""
    store = shelf["object"].store
    proxy = fault_proxy(store.endpoint)
    rule = proxy.add(**store.downloads("large.bin"), whole=True, ranged=True, times=None)

    modelfetch.ok("pull", store.uri("large.bin"), tmp_path / "m", env=store.env_at(proxy.url))

    assert rule.used
    assert (tmp_path / "m").read_bytes() == large()


def test_what_is_overwritten_midway_is_never_mixed(
    modelfetch: Cli, own_case: Case, fault_proxy: Proxied, tmp_path: Path
) -> None:
    """The new version comes whole, its first half too."""
    name = own_case.victim.removeprefix("dir/")
    new = {"large.bin": tree.noise(LARGE, 99)} if name == "large.bin" else own_case.expected | {"07/file": b"new"}
    content = new.get(name) or tree.tar_gz(new)
    proxy = fault_proxy(own_case.store.endpoint)
    overwrite = proxy.add(**own_case.rule(nth=2, before=lambda: own_case.store.put(own_case.victim, content)))
    proxy.add(**own_case.rule(cut_after=60_000))

    run = pull(modelfetch, own_case, proxy, tmp_path, MODELFETCH_CONNECTIONS="1")

    assert overwrite.used == 1
    assert_arrived(run, replace(own_case, expected=new), tmp_path)


def test_an_object_deleted_midway_is_not_found(
    modelfetch: Cli, own_case: Case, fault_proxy: Proxied, tmp_path: Path
) -> None:
    """66, at once: no time heals it."""
    proxy = fault_proxy(own_case.store.endpoint)
    proxy.add(**own_case.rule(before=lambda: own_case.store.delete(own_case.victim)))

    run = pull(modelfetch, own_case, proxy, tmp_path)

    assert_nothing(run, tmp_path, 66, "not_found")


def test_access_taken_away_midway_is_a_matter_of_credentials(
    modelfetch: Cli, case: Case, fault_proxy: Proxied, tmp_path: Path
) -> None:
    """77, after asking once more."""
    proxy = fault_proxy(case.store.endpoint)
    proxy.add(**case.rule(cut_after=60_000, before=lambda: proxy.add(status=403, times=None)))

    run = pull(modelfetch, case, proxy, tmp_path)

    assert_nothing(run, tmp_path, 77, "credentials")


def test_trouble_that_does_not_end_is_given_up(
    modelfetch: Cli, s3_bucket: S3Bucket, fault_proxy: Proxied, tmp_path: Path
) -> None:
    """75, when every try was in vain."""
    s3_bucket.put("dir/a", b"x")
    proxy = fault_proxy(s3_bucket.endpoint)
    proxy.add(**s3_bucket.downloads("dir/a"), reset=True, times=None)
    env = {**s3_bucket.env_at(proxy.url), "MODELFETCH_RETRIES": "1"}

    run = modelfetch("pull", s3_bucket.uri("dir/"), tmp_path / "d", env=env)

    assert (run.code, run.error["reason"]) == (75, "transient")
    assert not (tmp_path / "d" / "a").exists()
