"""All that a pull may wait for when a signal comes; nothing here ends by itself while a test runs."""

import select
import socket
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modelfetch.volume import receipt as receipts
from modelfetch.volume.receipt import FileEntry, Receipt
from testkit import archives, mounts, tree
from testkit.cli import Cli, Running
from testkit.faultproxy import FaultProxy
from testkit.stores import S3Bucket
from tests.faults import kill_trial

LONG_DURATION = "10m"
WAIT_SECONDS = 150  # seconds until it waits, on a busy machine
SPARSE_FILE_BYTES = 2**40  # bytes of a file with a hole: nobody hashes them in an hour
NAME_SERVER = "127.83.4.9"
SYN_SENT = "02"  # proc(5), /proc/net/tcp
_WITH_NAMES_FROM = ("unshare", "--mount", "sh", "-c", 'mount --bind "$0" /etc/resolv.conf && exec "$@"')


@dataclass
class BlockedPull:
    """Where a pull waits.

    Attributes:
        proxied: puts a fault proxy in front of a server.
        at: an empty directory.
        stack: what is to be closed at the end.
    """

    cli: Cli
    bucket: S3Bucket
    make_proxy: Callable[..., FaultProxy]
    directory: Path
    stack: ExitStack = field(default_factory=ExitStack)

    @property
    def destination(self) -> Path:
        """Where the model is to go."""
        return self.directory / "volume" / "m"

    def start_pull(self, endpoint: str, key: str = "m", **env: str) -> Running:
        """Begin to pull, with all our own limits far away."""
        far = {"MODELFETCH_RETRY_WAIT": LONG_DURATION, **self.bucket.env_at(endpoint), **env}
        return self.cli.start("pull", self.bucket.uri(key), self.destination, "--stall-timeout", LONG_DURATION, env=far)

    def spoil_downloads(self, key: str = "m", **rule: Any) -> FaultProxy:
        """A proxy in front of the store, which spoils the downloads of a key."""
        proxy = self.make_proxy(self.bucket.endpoint)
        proxy.add(times=None, **self.bucket.downloads(key), **rule)
        return proxy


def block_at_startup(site: BlockedPull) -> Running:
    """Half a second of loading, for most of which nobody could tell of a signal."""
    running = site.start_pull(site.bucket.endpoint)
    running.wait_for(lambda: kill_trial.has_signal_handler(running.process.pid), WAIT_SECONDS)
    return running


def block_on_dns(site: BlockedPull) -> Running:
    """A name server that never answers; CannotMountError where nobody may put it in the place of the real one."""
    mounts.run("unshare", "--mount", "true")
    server = site.stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    try:
        server.bind((NAME_SERVER, 53))
    except OSError as error:
        raise mounts.CannotMountError(f"there can be no name server here: {error}") from error
    resolver = site.directory / "resolv.conf"
    resolver.write_text(f"nameserver {NAME_SERVER}\noptions timeout:30 attempts:5\n")
    site.cli.prefix = [*_WITH_NAMES_FROM, str(resolver)]
    running = site.start_pull("http://store.example")
    running.wait_for(lambda: select.select([server], [], [], 0)[0], WAIT_SECONDS)
    return running


def block_on_connect(site: BlockedPull) -> Running:
    """A server that takes none: its queue is full. One try lasts 10 s, and the next comes much later."""
    server = site.stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
    port = server.getsockname()[1]
    for _ in range(2):  # the queue's length is one more than was asked for; the next has to wait
        queued = site.stack.enter_context(socket.socket())
        queued.setblocking(False)
        queued.connect_ex(("127.0.0.1", port))
    running = site.start_pull(f"http://127.0.0.1:{port}")
    running.wait_for(lambda: _is_connecting(running.process.pid), WAIT_SECONDS)
    return running


def _is_connecting(pid: int) -> bool:
    """Whether a process has asked for a connection that nobody takes."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    waiting = {f"socket:[{row[9]}]" for row in rows if row[3] == SYN_SENT}
    return bool(waiting & set(_list_open_files(pid)))


def block_on_metadata(site: BlockedPull) -> Running:
    """To the SDK's first question."""
    proxy = site.make_proxy(site.bucket.endpoint)
    proxy.add(times=None, mute=True)
    running = site.start_pull(proxy.url)
    proxy.wait_for(proxy.came, WAIT_SECONDS)
    return running


def block_between_attempts(site: BlockedPull) -> Running:
    """Of the whole pull: the store is not well."""
    proxy = site.make_proxy(site.bucket.endpoint)
    proxy.add(times=None, status=503)
    running = site.start_pull(proxy.url)
    running.wait_for(lambda: any("Next try" in line["message"] for line in running.log), WAIT_SECONDS)
    return running


def block_on_headers(site: BlockedPull) -> Running:
    """Of the model's bytes."""
    proxy = site.spoil_downloads(mute=True)
    running = site.start_pull(proxy.url)
    proxy.wait_for(lambda: proxy.came(**site.bucket.downloads("m")), WAIT_SECONDS)
    return running


def block_on_body(site: BlockedPull) -> Running:
    """Of which some have come."""
    proxy = site.spoil_downloads(stall_after=50_000)
    running = site.start_pull(proxy.url)
    proxy.wait_for(lambda: proxy.sent() >= 50_000, WAIT_SECONDS)
    return running


def block_on_retry_after(site: BlockedPull) -> Running:
    """The store has said when to come back."""
    proxy = site.spoil_downloads(status=503, headers={"Retry-After": "600"})
    running = site.start_pull(proxy.url)
    proxy.wait_for(lambda: proxy.came(**site.bucket.downloads("m")), WAIT_SECONDS)
    return running


def block_on_archive_body(site: BlockedPull) -> Running:
    """An archive's first member lies there, the second has not come."""
    data = archives.packed({"a": tree.noise(5_000_000), "b": tree.noise(9_000_000)}, "tar.gz")
    site.bucket.put("m.tar.gz", data)
    proxy = site.spoil_downloads("m.tar.gz", covers=10_000_000, stall_after=0)
    running = site.start_pull(proxy.url, "m.tar.gz")
    running.wait_for(lambda: [*site.directory.rglob(f"{tree.STAGING}/*/tree/b")], WAIT_SECONDS)
    return running


def block_on_staging_lock(site: BlockedPull) -> Running:
    """To the same destination."""
    proxy = site.spoil_downloads(stall_after=0)
    site.start_pull(proxy.url)
    proxy.wait_for(lambda: proxy.came(**site.bucket.downloads("m")), WAIT_SECONDS)
    running = site.start_pull(proxy.url)
    running.wait_for(lambda: any("another pull" in line["message"] for line in running.log), WAIT_SECONDS)
    return running


def block_on_hashing(site: BlockedPull) -> Running:
    """Of a large file, by `verify`: it waits for nothing, it works."""
    site.destination.parent.mkdir()
    with site.destination.open("wb") as file:
        file.truncate(SPARSE_FILE_BYTES)
    entry = (FileEntry("m", SPARSE_FILE_BYTES, "0" * 64),)
    now = receipts.utc_now()
    receipt = Receipt("s3://b/m", "v", receipts.model_digest(entry, directory=False), entry, (), 0, 0, 0.0, 0, now, now)
    receipts.receipt_path(site.destination, directory=False).write_text(receipt.to_json())
    running = site.cli.start("verify", site.destination)
    running.wait_for(lambda: str(site.destination) in _list_open_files(running.process.pid), WAIT_SECONDS)
    return running


def _list_open_files(pid: int) -> list[str]:
    """The files and sockets that a process has open, as proc(5) names them."""
    found: list[str] = []
    with suppress(FileNotFoundError):  # closed meanwhile
        found.extend(str(path.readlink()) for path in Path(f"/proc/{pid}/fd").iterdir())
    return found


BLOCKING_POINTS: dict[str, Callable[[BlockedPull], Running]] = {
    function.__name__.removeprefix("block_").replace("_", " "): function
    for function in (
        *(
            block_at_startup,
            block_on_dns,
            block_on_connect,
            block_on_metadata,
            block_between_attempts,
            block_on_headers,
            block_on_body,
        ),
        *(block_on_retry_after, block_on_archive_body, block_on_staging_lock, block_on_hashing),
    )
}
