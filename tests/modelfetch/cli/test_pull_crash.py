"""Concurrent and killed pulls: nothing half-published, nothing left behind, nothing fetched twice."""

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from testkit.cli_runner import CliRunner, RunningCommand
from testkit.fault_proxy import FaultProxy
from testkit.file_tree import STAGING_NAME, pack_tar, random_bytes, read_files
from testkit.stores import S3Bucket, Store

Proxied = Callable[[str], FaultProxy]
BIG = random_bytes(24_000_000)
LAST_PART_OFFSET = 23_000_000  # an offset in the last part of it


def list_leftovers(root: Path) -> list[str]:
    """List files left in any staging area below a directory; empty lock files do not count."""
    found = [path for area in root.rglob(STAGING_NAME) for path in area.rglob("*")]
    return [path.name for path in found if path.is_dir() or path.stat().st_size]


def start_stalled_pull(modelfetch: CliRunner, store: Store, proxy: FaultProxy, dest: Path) -> RunningCommand:
    """Start a pull of BIG and return once most bytes have arrived and the last part stalls."""
    store.put("m", BIG)
    proxy.add_rule(**store.download_filter("m"), covers=LAST_PART_OFFSET, stall_after=0)
    running = modelfetch.start("pull", store.uri("m"), dest, "--connections", "2", env=store.env_at(proxy.url))
    running.wait_for_bytes(14_000_000)
    return running


@pytest.mark.parametrize(("kind", "signum"), [("s3", signal.SIGTERM), ("s3", signal.SIGKILL), ("gcs", signal.SIGKILL)])
def test_killed_pull_is_resumed(
    modelfetch: CliRunner,
    request: pytest.FixtureRequest,
    fault_proxy: Proxied,
    tmp_path: Path,
    kind: str,
    signum: signal.Signals,
) -> None:
    """The next pull fetches only the missing bytes and cleans the staging area."""
    store: Store = request.getfixturevalue(f"{kind}_bucket")
    proxy = fault_proxy(store.endpoint)
    killed = start_stalled_pull(modelfetch, store, proxy, tmp_path / "m").send_signal(signum)
    half_published = read_files(tmp_path).keys() & {"m"}
    proxy.clear()

    run = modelfetch.ok("pull", store.uri("m"), tmp_path / "m", "--output", "json", env=store.env_at(proxy.url))

    assert killed.code == (-signal.SIGKILL if signum == signal.SIGKILL else 128 + signal.SIGTERM)
    assert not half_published
    assert (tmp_path / "m").read_bytes() == BIG
    assert run.receipt["resumed_bytes"] > 0
    assert (
        proxy.sent_bytes() <= len(BIG) - run.receipt["resumed_bytes"] + 100_000
    )  # a listing's or an error's few bytes
    assert list_leftovers(tmp_path) == []


def test_new_version_after_a_killed_pull_is_fetched_from_scratch(
    modelfetch: CliRunner, s3_bucket: S3Bucket, fault_proxy: Proxied, tmp_path: Path
) -> None:
    """Staged bytes are resumed only if the version is unchanged."""
    proxy = fault_proxy(s3_bucket.endpoint)
    start_stalled_pull(modelfetch, s3_bucket, proxy, tmp_path / "m").send_signal(signal.SIGKILL)
    proxy.clear()
    new = random_bytes(len(BIG), 7)
    s3_bucket.put("m", new)

    run = modelfetch.ok("pull", s3_bucket.uri("m"), tmp_path / "m", "--output", "json", env=s3_bucket.env_at(proxy.url))

    assert (tmp_path / "m").read_bytes() == new
    assert run.receipt["resumed_bytes"] == 0
    assert list_leftovers(tmp_path) == []


def test_staged_bytes_damaged_between_two_pulls_are_not_published(
    modelfetch: CliRunner, s3_bucket: S3Bucket, fault_proxy: Proxied, tmp_path: Path
) -> None:
    """The store's checksum detects any change of the staged bytes."""
    proxy = fault_proxy(s3_bucket.endpoint)
    start_stalled_pull(modelfetch, s3_bucket, proxy, tmp_path / "m").send_signal(signal.SIGKILL)
    proxy.clear()
    parts = [path for path in tmp_path.rglob("*") if path.is_file() and path.stat().st_size >= len(BIG)]
    for part in parts:
        with part.open("r+b") as file:
            file.seek(1_000_000)
            file.write(b"damage")

    modelfetch.ok("pull", s3_bucket.uri("m"), tmp_path / "m", env=s3_bucket.env_at(proxy.url))

    assert parts
    assert (tmp_path / "m").read_bytes() == BIG


def test_killed_pull_leaves_the_old_model_and_receipt(
    modelfetch: CliRunner, s3_bucket: S3Bucket, fault_proxy: Proxied, tmp_path: Path
) -> None:
    """A killed pull leaves the published model and the receipt unchanged."""
    proxy = fault_proxy(s3_bucket.endpoint)
    s3_bucket.put("m", b"old")
    modelfetch.ok("pull", s3_bucket.uri("m"), tmp_path / "m", env=s3_bucket.env)
    before = (tmp_path / "m.modelfetch-receipt").read_bytes()

    start_stalled_pull(modelfetch, s3_bucket, proxy, tmp_path / "m").send_signal(signal.SIGKILL)

    assert (tmp_path / "m").read_bytes() == b"old"
    assert (tmp_path / "m.modelfetch-receipt").read_bytes() == before


def test_killed_extraction_publishes_nothing(
    modelfetch: CliRunner, s3_bucket: S3Bucket, fault_proxy: Proxied, tmp_path: Path
) -> None:
    """Members extracted before the kill are not published; the next pull publishes all."""
    files = {f"{number}.bin": random_bytes(2_000_000, number) for number in range(10)}
    s3_bucket.put("m.tar", pack_tar(files))
    proxy = fault_proxy(s3_bucket.endpoint)
    proxy.add_rule(**s3_bucket.download_filter("m.tar"), covers=19_000_000, stall_after=0)
    running = modelfetch.start("pull", s3_bucket.uri("m.tar"), tmp_path / "d", env=s3_bucket.env_at(proxy.url))
    running.wait_for_bytes(8_000_000)

    running.send_signal(signal.SIGKILL)
    half_published = (tmp_path / "d").exists()
    modelfetch.ok("pull", s3_bucket.uri("m.tar"), tmp_path / "d", env=s3_bucket.env)

    assert not half_published
    assert read_files(tmp_path / "d") == files
    assert list_leftovers(tmp_path) == []


@pytest.mark.parametrize("key", ["m", "d/"])
def test_second_concurrent_pull_waits_and_fetches_nothing(
    modelfetch: CliRunner, s3_bucket: S3Bucket, fault_proxy: Proxied, tmp_path: Path, key: str
) -> None:
    """Both pulls succeed, and the bytes are fetched once."""
    files = {"d/a": random_bytes(1000, 1), "d/b": random_bytes(1000, 2), "m": random_bytes(1000, 3)}
    for name, data in files.items():
        s3_bucket.put(name, data)
    proxy = fault_proxy(s3_bucket.endpoint)
    hold = threading.Event()
    proxy.add_rule(**s3_bucket.download_filter(), before=lambda: hold.wait(30))
    args = ("pull", s3_bucket.uri(key), tmp_path / "x", "--output", "json")

    first = modelfetch.start(*args, env=s3_bucket.env_at(proxy.url))
    proxy.wait_for(lambda: proxy.matching_requests(**s3_bucket.download_filter()))
    second = modelfetch.start(*args, env=s3_bucket.env_at(proxy.url))
    second.wait_for(lambda: any("another pull" in line["message"] for line in second.log))
    hold.set()
    runs = [first.finish(), second.finish()]

    assert [run.code for run in runs] == [0, 0]
    assert runs[0].receipt == runs[1].receipt
    expected = [data for name, data in files.items() if name.startswith(key)]
    assert sum(request.sent for request in proxy.matching_requests(**s3_bucket.download_filter())) == sum(
        map(len, expected)
    )


def test_concurrent_pulls_of_different_models_share_a_directory(
    modelfetch: CliRunner, s3_bucket: S3Bucket, tmp_path: Path
) -> None:
    """Four models are pulled into the same DEST/ at once."""
    for name in "abcd":
        s3_bucket.put(name, random_bytes(3_000_000, ord(name)))

    runs = [modelfetch.start("pull", s3_bucket.uri(name), f"{tmp_path}/", env=s3_bucket.env) for name in "abcd"]

    assert [run.finish().code for run in runs] == [0] * 4
    assert read_files(tmp_path) == {name: random_bytes(3_000_000, ord(name)) for name in "abcd"}
    assert list_leftovers(tmp_path) == []


def test_reader_during_an_update_sees_files_of_one_version(
    modelfetch: CliRunner, s3_bucket: S3Bucket, tmp_path: Path
) -> None:
    """A reader with the directory open sees one version, or missing files."""
    names = [f"{number:02}" for number in range(30)]
    versions = [dict.fromkeys(names, b"%d" % version) for version in (1, 2)]
    seen: set[frozenset[bytes]] = set()
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            directory_fd = os.open(tmp_path / "d", os.O_RDONLY)
            try:
                contents = [Path(f"/proc/self/fd/{directory_fd}/{name}").read_bytes() for name in names]
                seen.add(frozenset(contents))
            except FileNotFoundError:
                pass
            finally:
                os.close(directory_fd)

    for name, data in versions[0].items():
        s3_bucket.put(f"d/{name}", data)
    modelfetch.ok("pull", s3_bucket.uri("d/"), tmp_path / "d", env=s3_bucket.env)
    reader = threading.Thread(target=read)
    reader.start()
    for name, data in versions[1].items():
        s3_bucket.put(f"d/{name}", data)
    run = modelfetch("pull", s3_bucket.uri("d/"), tmp_path / "d", env=s3_bucket.env)
    done.set()
    reader.join()

    assert run.code == 0
    assert read_files(tmp_path / "d") == versions[1]
    assert seen <= {frozenset({b"1"}), frozenset({b"2"})}
