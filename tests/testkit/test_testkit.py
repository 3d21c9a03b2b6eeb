import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import urllib3

import testkit
from testkit import servers
from testkit.cli_runner import CliRunner
from testkit.file_tree import RECEIPT_NAME, directory_digest, read_files, write_files
from testkit.https_server import HttpsServer
from testkit.stores import S3Server, Store, crc_base64


def test_index_lists_every_module() -> None:
    """The docstring of the package names each module of the test kit."""
    modules = {path.stem for path in Path(servers.__file__).parent.glob("*.py")} - {"__init__"}

    assert modules <= set(re.findall(r"`(\w+)`", testkit.__doc__ or ""))


def test_store_returns_the_stored_object(store: Store) -> None:
    """Each test has an empty bucket of its own."""
    assert store.list_keys() == []

    store.put("a/b", b"one")

    assert (store.list_keys(), store.get("a/b")) == (["a/b"], b"one")
    assert store.uri("a/b") == f"{store.scheme}://{store.bucket}/a/b"


def test_versioned_store_gives_an_overwrite_a_new_version(versioned_store: Store) -> None:
    """Overwriting an object creates a new version."""
    versioned_store.put("m", b"one")
    first = versioned_store.version("m")
    versioned_store.put("m", b"two")

    assert first not in ("", "null")
    assert versioned_store.version("m") != first


def test_moto_serves_without_go(moto: S3Server) -> None:
    """The embedded server stores and returns an object."""
    with moto.new_bucket() as bucket:
        bucket.put("m", b"one")

        assert bucket.get("m") == b"one"


@pytest.mark.parametrize(
    ("algorithm", "known"), [("crc32", "y/Q5Jg=="), ("crc32c", "4waSgw=="), ("crc64nvme", "rosUhgp5mIg=")]
)
def test_checksums_equal_the_catalogues_check_values(algorithm: str, known: str) -> None:
    """The check values of `123456789` from the catalogue of parametrised CRC algorithms."""
    assert crc_base64(algorithm, b"123456789") == known


def test_https_server_serves_ranges_over_tls(https_server: HttpsServer) -> None:
    """Whole, ranged and chunked responses arrive once the authority is trusted."""
    https_server.files["/m"] = b"0123456789"
    pool = urllib3.PoolManager(ca_certs=str(https_server.ca), retries=False)

    whole = pool.request("GET", f"{https_server.url}/m")
    part = pool.request("GET", f"{https_server.url}/m", headers={"Range": "bytes=2-4"})
    https_server.length = False
    chunked = pool.request("GET", f"{https_server.url}/m")

    assert (whole.status, whole.data) == (200, b"0123456789")
    assert (part.status, part.data, part.headers["Content-Range"]) == (206, b"234", "bytes 2-4/10")
    assert (chunked.data, "Content-Length" in chunked.headers) == (b"0123456789", False)
    pool.clear()


def test_command_runs_without_the_developers_variables(modelfetch: CliRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only variables needed to run at all are inherited."""
    monkeypatch.setenv("AWS_PROFILE", "of-the-developer")
    monkeypatch.setenv("MODELFETCH_SOURCE", "s3://of-the-developer/m")

    names = CliRunner(modelfetch.home).env

    assert "AWS_PROFILE" not in names
    assert "MODELFETCH_SOURCE" not in names


def test_tree_is_read_as_written(tmp_path: Path) -> None:
    """Receipts are left out of the files read."""
    files = {"a/b": b"1", "c": b""}
    write_files(tmp_path, files | {RECEIPT_NAME: b"{}", "c" + RECEIPT_NAME: b"{}"})

    assert read_files(tmp_path) == files


@pytest.mark.process
def test_tree_digest_equals_the_shells(tmp_path: Path) -> None:
    """The digest equals `sha256sum` over the sorted paths, hashed again."""
    files = {"b/x": b"2", "a": b"1", "b-y": b"3"}
    write_files(tmp_path, files)
    shell = "find * -type f | LC_ALL=C sort | xargs sha256sum | sha256sum | cut -c1-64"

    assert (
        directory_digest(files)
        == "sha256:" + subprocess.check_output(shell, shell=True, cwd=tmp_path, text=True).strip()
    )


@pytest.mark.process
def test_servers_are_built_once_for_concurrent_callers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two processes, one runs `go install` and the other waits for the result."""
    fake_go = tmp_path / "bin" / "go"
    write_files(
        tmp_path,
        {"bin/go": b'#!/bin/sh\necho run >> "$COUNT"\nsleep 0.3\ntouch "$GOBIN/$(basename "${2%@*}")"\n'},
    )
    fake_go.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake_go.parent}:/usr/bin:/bin")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("MODELFETCH_TEST_SERVERS", raising=False)
    monkeypatch.setenv("COUNT", str(tmp_path / "count"))
    command = [sys.executable, servers.__file__, "build"]

    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    printed = {process.communicate(timeout=60)[0] for process in both}

    assert (tmp_path / "count").read_text() == "run\n" * 3  # once for each program
    assert printed == {f"{servers.MINIO.path}\n{servers.FAKE_GCS.path}\n{servers.TOXIPROXY.path}\n"}


@pytest.mark.parametrize("_", range(2))
def test_environment_is_the_same_in_every_test(_: int, seen: list[dict[str, str]]) -> None:
    """Threads of a campaign iterate the environment meanwhile."""
    seen.append(dict(os.environ))
    assert "PYTEST_CURRENT_TEST" not in seen[-1]
    assert seen[-1] == seen[0]


@pytest.fixture(scope="module")
def seen() -> list[dict[str, str]]:
    """Return a list of the environments seen by tests."""
    return []
