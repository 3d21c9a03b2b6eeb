import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.process
OFFLINE = b"#!/bin/sh\necho 'go: downloading' >&2\necho 'go: module lookup disabled by GOPROXY=off' >&2\nexit 1\n"


def build_servers(tmp_path: Path, **env: str) -> "subprocess.CompletedProcess[str]":
    """Run `make servers`' command with an empty cache and with the programs of tmp_path/bin only."""
    environ = {"PATH": str(tmp_path / "bin"), "XDG_CACHE_HOME": str(tmp_path / "cache"), "HOME": str(tmp_path), **env}
    command = [sys.executable, "-m", "testkit.servers", "build"]
    return subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=60)


def test_build_without_go_says_one_line_and_succeeds(tmp_path: Path) -> None:
    """The tests then use moto's server, and skip what needs GCS."""
    done = build_servers(tmp_path)

    assert (done.returncode, done.stdout) == (0, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("minio is built with Go, which is not installed: the tests use moto's server")


@pytest.mark.parametrize(("mode", "code"), [("", 0), ("built", 1)])
def test_build_without_network_says_why(tmp_path: Path, mode: str, code: int) -> None:
    """In one line, and as success; with MODELFETCH_TEST_SERVERS=built as failure, with all that Go printed."""
    program = tmp_path / "bin" / "go"
    program.parent.mkdir()
    program.write_bytes(OFFLINE)
    program.chmod(0o755)

    done = build_servers(tmp_path, MODELFETCH_TEST_SERVERS=mode)

    assert (done.returncode, done.stdout) == (code, "")
    first, *others = done.stderr.splitlines()
    assert first.startswith("minio could not be built: go: module lookup disabled by GOPROXY=off")
    assert bool(others) == (mode == "built")


def test_embedded_servers_build_nothing(tmp_path: Path) -> None:
    """MODELFETCH_TEST_SERVERS=embedded is reason enough."""
    done = build_servers(tmp_path, MODELFETCH_TEST_SERVERS="embedded")

    assert (done.returncode, len(done.stderr.splitlines())) == (0, 1)
