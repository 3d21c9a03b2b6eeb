"""Server of the benchmark: nginx with TLS and a private CA, objects in memory; its CPU counts for no tool."""

import os
import re
import shutil
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import trustme

from bench import data, store_responses
from bench.measure import available_memory
from testkit.servers import free_port

_INSTALL_COMMAND = "apt-get install nginx-light libnginx-mod-http-headers-more-filter"
_MODULE = "ngx_http_headers_more_filter_module.so"
_HERE = Path(__file__).parent
_READY_SECONDS = 30


class NoServerError(Exception):
    """No usable nginx is installed."""


@dataclass(frozen=True)
class Server:
    """A running nginx.

    Attributes:
        port: of 127.0.0.1.
        ca: the CA certificates to trust.
        log: a line per request.
        pid: of the main process.
    """

    port: int
    ca: Path
    log: Path
    pid: int

    @property
    def endpoint(self) -> str:
        """Return the URL of the server."""
        return f"https://127.0.0.1:{self.port}"

    def log_position(self) -> int:
        """Return the end of the log, to count from."""
        return self.log.stat().st_size

    def requests_since(self, position: int) -> list[str]:
        """Return the log lines after a position."""
        with self.log.open() as file:
            file.seek(position)
            return file.read().splitlines()

    def environment(self, endpoint: str | None = None) -> dict[str, str]:
        """Return variables that point every tool to the server, or to a proxy in front."""
        endpoint = endpoint or self.endpoint
        ca = str(self.ca)
        trusted = dict.fromkeys(("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "RCLONE_CA_CERT"), ca)
        s3 = {"TYPE": "s3", "PROVIDER": "Other", "ENV_AUTH": "true", "ENDPOINT": endpoint, "REGION": "us-east-1"}
        gcs = {"TYPE": "google cloud storage", "ANONYMOUS": "true", "ENDPOINT": f"{endpoint}/storage/v1/"}
        return {
            **trusted,
            "AWS_ENDPOINT_URL": endpoint,
            "S3_ENDPOINT_URL": endpoint,  # for s5cmd
            "AWS_ACCESS_KEY_ID": "nobody",
            "AWS_SECRET_ACCESS_KEY": "nothing",
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "STORAGE_EMULATOR_HOST": endpoint,
            "NO_GCE_CHECK": "true",
            "GOOGLE_CLOUD_PROJECT": "nothing",
            "RCLONE_CONFIG": "/notfound",
            **{f"RCLONE_CONFIG_S3_{name}": value for name, value in s3.items()},
            **{f"RCLONE_CONFIG_GCS_{name}": value for name, value in gcs.items()},
        }


@contextmanager
def start_server(data_dir: Path, objects: Sequence[data.StoredObject], port: int = 0) -> Iterator[Server]:
    """Serve copies of the objects until the block ends, in memory if half of the memory stays free.

    Raises:
        NoServerError: nginx is missing or does not start.
    """
    found = find_nginx()
    if found is None:
        raise NoServerError(f"There is no nginx with the headers-more module here; on Debian: {_INSTALL_COMMAND}")
    nginx, modules = found
    port = port or free_port()
    with tempfile.TemporaryDirectory(prefix="modelfetch-bench-", dir=choose_directory(objects, data_dir)) as name:
        root = Path(name)
        data.copy_objects(data_dir, list(objects), root / "objects" / store_responses.BUCKET)
        for path in (root / "objects").rglob("*"):
            os.utime(path, (store_responses.MODIFIED, store_responses.MODIFIED))
        (root / "replies").mkdir()
        store_responses.write_responses(root / "replies", objects, f"https://127.0.0.1:{port}")
        _write_configuration(root, port, modules)
        with (root / "run/stderr").open("wb") as sink:
            process = subprocess.Popen([nginx, "-p", str(root), "-c", str(root / "run/nginx.conf")], stderr=sink)
        try:
            server = Server(port, root / "run/ca.pem", root / "run/access.log", process.pid)
            _wait_until_ready(server, process, root)
            yield server
        finally:
            process.terminate()
            process.wait()


def choose_directory(objects: Sequence[data.StoredObject], made: Path) -> Path:
    memory = Path("/dev/shm")
    needed = sum(each.size for each in objects if each.key != "sparse.bin")
    if not memory.is_dir() or shutil.disk_usage(memory).free < needed:
        return made.parent
    return memory if available_memory() > 2 * needed else made.parent


def find_nginx() -> tuple[str, Path] | None:
    """Return the machine's nginx and its module directory, or None without the headers-more module."""
    nginx = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    if nginx is None:
        return None
    said = subprocess.run([nginx, "-V"], check=True, capture_output=True, text=True).stderr
    found = re.search(r"--modules-path=(\S+)", said)
    modules = Path(found[1] if found else "/usr/lib/nginx/modules")
    return (nginx, modules) if (modules / _MODULE).is_file() else None


def install_nginx() -> None:
    """Install nginx if missing, where possible.

    Raises:
        NoServerError: nginx cannot be installed here; the message says how.
    """
    if find_nginx() is None:
        if os.geteuid() or not shutil.which("apt-get"):
            raise NoServerError(f"There is no nginx with the headers-more module here; on Debian: {_INSTALL_COMMAND}")
        print(_INSTALL_COMMAND, file=sys.stderr)
        subprocess.run(
            [*_INSTALL_COMMAND.split(), "-y", "--no-install-recommends"], check=True, stdout=subprocess.DEVNULL
        )


def _write_configuration(root: Path, port: int, modules: Path) -> None:
    run = root / "run"
    (run / "tmp").mkdir(parents=True)
    authority = trustme.CA()
    authority.cert_pem.write_to_path(run / "ca.pem")
    authority.issue_cert("127.0.0.1", "localhost").private_key_and_cert_chain_pem.write_to_path(run / "server.pem")
    text = (_HERE / "nginx.conf").read_text()
    values = {
        "MODULES": modules,
        "USER": "user root;" if os.geteuid() == 0 else "",  # only the owner can read the directory
        "RUN": run,
        "REPLIES": root / "replies",
        "OBJECTS": root / "objects",
        "PORT": port,
    }
    for name, value in values.items():
        text = text.replace(f"@{name}@", str(value))
    (run / "nginx.conf").write_text(text)


def _wait_until_ready(server: Server, process: subprocess.Popen[bytes], root: Path) -> None:
    context = ssl.create_default_context(cafile=str(server.ca))
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    deadline = time.monotonic() + _READY_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            opener.open(f"{server.endpoint}/alive", timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    logs = "".join(path.read_text() for path in (root / "run/stderr", root / "run/error.log") if path.exists())
    raise NoServerError(f"nginx did not start:\n{logs[-2000:]}")
