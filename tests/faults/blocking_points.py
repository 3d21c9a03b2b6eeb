"""Every operation on which a pull can block when a signal arrives; none ends by itself while a test runs."""

import select
import socket
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modelfetch.volume import receipt as receipts
from modelfetch.volume.receipt import FileEntry, Receipt
from testkit import archives, mounts
from testkit.cli_runner import CliRunner, RunningCommand
from testkit.fault_proxy import FaultProxy
from testkit.file_tree import STAGING_NAME, random_bytes
from testkit.stores import S3Bucket
from tests.faults import kill_trial

LONG_DURATION = "10m"
WAIT_SECONDS = 150  # until the pull blocks, on a busy machine
SPARSE_FILE_BYTES = 2**40  # bytes of a sparse file: not hashed within an hour
NAME_SERVER = "127.83.4.9"
SYN_SENT = "02"  # proc(5), /proc/net/tcp
_WITH_NAMES_FROM = ("unshare", "--mount", "sh", "-c", 'mount --bind "$0" /etc/resolv.conf && exec "$@"')


@dataclass
class BlockedPull:
    """A pull to block at a chosen operation.

    Attributes:
        make_proxy: starts a fault proxy in front of a server.
        directory: an empty directory for the run.
        stack: resources to close at the end.
    """

    cli: CliRunner
    bucket: S3Bucket
    make_proxy: Callable[..., FaultProxy]
    directory: Path
    stack: ExitStack = field(default_factory=ExitStack)

    @property
    def destination(self) -> Path:
        """Return the destination of the pull."""
        return self.directory / "volume" / "m"

    def start_pull(self, endpoint: str, key: str = "m", **env: str) -> RunningCommand:
        """Start a pull whose own timeouts are all far away."""
        far = {"MODELFETCH_RETRY_WAIT": LONG_DURATION, **self.bucket.env_at(endpoint), **env}
        return self.cli.start("pull", self.bucket.uri(key), self.destination, "--stall-timeout", LONG_DURATION, env=far)

    def spoil_downloads(self, key: str = "m", **rule: Any) -> FaultProxy:
        """Return a fault proxy in front of the store with `rule` for every download of `key`."""
        proxy = self.make_proxy(self.bucket.endpoint)
        proxy.add_rule(times=None, **self.bucket.download_filter(key), **rule)
        return proxy


def block_at_startup(site: BlockedPull) -> RunningCommand:
    """Start-up: half a second of imports, during most of which Python has no signal handler."""
    running = site.start_pull(site.bucket.endpoint)
    running.wait_for(lambda: kill_trial.has_signal_handler(running.process.pid), WAIT_SECONDS)
    return running


def block_on_dns(site: BlockedPull) -> RunningCommand:
    """DNS lookup at a name server without answers.

    Raises:
        CannotMountError: the machine's name server cannot be replaced here.
    """
    mounts.run_privileged("unshare", "--mount", "true")
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


def block_on_connect(site: BlockedPull) -> RunningCommand:
    """TCP connect to a server with a full backlog: an attempt lasts 10 s, and the next follows much later."""
    server = site.stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
    port = server.getsockname()[1]
    for _ in range(2):  # the kernel queues one more than the backlog; the next connection blocks
        queued = site.stack.enter_context(socket.socket())
        queued.setblocking(False)
        queued.connect_ex(("127.0.0.1", port))
    running = site.start_pull(f"http://127.0.0.1:{port}")
    running.wait_for(lambda: _is_connecting(running.process.pid), WAIT_SECONDS)
    return running


def _is_connecting(pid: int) -> bool:
    """Tell whether a process waits for a TCP connection to be accepted."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    waiting = {f"socket:[{row[9]}]" for row in rows if row[3] == SYN_SENT}
    return bool(waiting & set(_list_open_files(pid)))


def block_on_metadata(site: BlockedPull) -> RunningCommand:
    """Response to the SDK's first request."""
    proxy = site.make_proxy(site.bucket.endpoint)
    proxy.add_rule(times=None, silent=True)
    running = site.start_pull(proxy.url)
    proxy.wait_for(proxy.matching_requests, WAIT_SECONDS)
    return running


def block_between_attempts(site: BlockedPull) -> RunningCommand:
    """Pause before the next attempt of the whole pull: the store answers 503."""
    proxy = site.make_proxy(site.bucket.endpoint)
    proxy.add_rule(times=None, status=503)
    running = site.start_pull(proxy.url)
    running.wait_for(lambda: any("Next try" in line["message"] for line in running.log), WAIT_SECONDS)
    return running


def block_on_headers(site: BlockedPull) -> RunningCommand:
    """Response head of the model's download."""
    proxy = site.spoil_downloads(silent=True)
    running = site.start_pull(proxy.url)
    proxy.wait_for(lambda: proxy.matching_requests(**site.bucket.download_filter("m")), WAIT_SECONDS)
    return running


def block_on_body(site: BlockedPull) -> RunningCommand:
    """Rest of a download after its first bytes have arrived."""
    proxy = site.spoil_downloads(stall_after=50_000)
    running = site.start_pull(proxy.url)
    proxy.wait_for(lambda: proxy.sent_bytes() >= 50_000, WAIT_SECONDS)
    return running


def block_on_retry_after(site: BlockedPull) -> RunningCommand:
    """Pause before the next request, as long as the store's Retry-After says."""
    proxy = site.spoil_downloads(status=503, headers={"Retry-After": "600"})
    running = site.start_pull(proxy.url)
    proxy.wait_for(lambda: proxy.matching_requests(**site.bucket.download_filter("m")), WAIT_SECONDS)
    return running


def block_on_archive_body(site: BlockedPull) -> RunningCommand:
    """Rest of an archive: the first member is on the disk, the second is missing."""
    data = archives.pack_files({"a": random_bytes(5_000_000), "b": random_bytes(9_000_000)}, "tar.gz")
    site.bucket.put("m.tar.gz", data)
    proxy = site.spoil_downloads("m.tar.gz", covers=10_000_000, stall_after=0)
    running = site.start_pull(proxy.url, "m.tar.gz")
    running.wait_for(lambda: [*site.directory.rglob(f"{STAGING_NAME}/*/tree/b")], WAIT_SECONDS)
    return running


def block_on_staging_lock(site: BlockedPull) -> RunningCommand:
    """Staging lock held by another pull to the same destination."""
    proxy = site.spoil_downloads(stall_after=0)
    site.start_pull(proxy.url)
    proxy.wait_for(lambda: proxy.matching_requests(**site.bucket.download_filter("m")), WAIT_SECONDS)
    running = site.start_pull(proxy.url)
    running.wait_for(lambda: any("another pull" in line["message"] for line in running.log), WAIT_SECONDS)
    return running


def block_on_hashing(site: BlockedPull) -> RunningCommand:
    """Hashing of a large file by `verify`: busy, not blocked."""
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
    """Return the open files and sockets of a process, as proc(5) names them."""
    found: list[str] = []
    with suppress(FileNotFoundError):  # closed meanwhile
        found.extend(str(path.readlink()) for path in Path(f"/proc/{pid}/fd").iterdir())
    return found


BLOCKING_POINTS: dict[str, Callable[[BlockedPull], RunningCommand]] = {
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
