"""Start of the process: no time for garbage collection and unused libraries before a model is asked for."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.process

DOCKERFILE = Path(__file__).parents[2] / "Dockerfile.init"
(ENTRY_POINT,) = (
    json.loads(line.removeprefix("ENTRYPOINT "))
    for line in DOCKERFILE.read_text().splitlines()
    if line.startswith("ENTRYPOINT ")
)
COUNTED = """
import gc
from modelfetch.__main__ import main
gc.set_debug(gc.DEBUG_STATS)
main()
"""
BLOCKED_IN_CHILD = """
import subprocess
import sys
from modelfetch.signals import SignalGuard
child = "import signal; print(len(signal.pthread_sigmask(signal.SIG_BLOCK, ())))"
with SignalGuard():
    subprocess.run([sys.executable, "-c", child], check=True)
"""
STARTED = """
import gc
import sys
from modelfetch.__main__ import resume_collection
from modelfetch.cli import app as cli
gc.disable()
code = cli.run(sys.argv[1:], on_ready=resume_collection)
print(code, gc.isenabled(), gc.get_freeze_count() > 0)
"""


def run_python(code: str, *args: str) -> "subprocess.CompletedProcess[str]":
    """Run code in a fresh interpreter without credentials."""
    env = {"AWS_EC2_METADATA_DISABLED": "true", "HOME": "/nonexistent", "PATH": ""}
    return subprocess.run(
        [sys.executable, "-c", code, *args], env=env, capture_output=True, text=True, check=False, timeout=120
    )


def test_no_garbage_is_collected_while_the_process_starts(tmp_path: Path) -> None:
    """Objects that libraries create at import stay alive: a collection would cost an eighth of a small model's pull."""
    (tmp_path / "model").write_bytes(b"weights")

    done = run_python(COUNTED, "pull", str(tmp_path / "model"), str(tmp_path / "copy"))

    assert done.returncode == 0
    assert "Fetching" in done.stderr
    assert "gc: collecting" not in done.stderr.partition('"message": "Fetching')[0]


@pytest.mark.parametrize(
    ("source", "code"), [("model", 0), ("http://127.0.0.1:1/model", 75)], ids=["opened", "refused"]
)
def test_garbage_is_collected_after_the_start(tmp_path: Path, source: str, code: int) -> None:
    """Collection resumes once a source was opened or refused, without the objects of the start."""
    (tmp_path / "model").write_bytes(b"weights")
    source = source if "://" in source else str(tmp_path / source)

    done = run_python(STARTED, "pull", source, str(tmp_path / "copy"), "--retries", "2", "--retry-wait", "10ms")

    assert done.stdout.split() == [str(code), "True", "True"], done.stderr


def test_reading_from_s3_does_not_import_boto3() -> None:
    """Only uploads need boto3's transfer manager, which imports another hundred modules."""
    done = run_python(
        "import sys, modelfetch.sources.s3.source; print('botocore' in sys.modules, 'boto3' in sys.modules)"
    )

    assert done.stdout.split() == ["True", "False"], done.stderr


def test_reading_from_gcs_anonymously_does_not_import_googles_libraries() -> None:
    """The libraries take longer to import than a small model to pull; credentials, uploads and refusals need them."""
    done = run_python(
        "import sys\n"
        "from modelfetch.sources import SourceOptions, open_source, parse_uri\n"
        "open_source(parse_uri('gs://bucket/model'), SourceOptions(anonymous=True))\n"
        "print('modelfetch.sources.gcs.source' in sys.modules, 'google' in sys.modules, 'requests' in sys.modules)"
    )

    assert done.stdout.split() == ["True", "False", "False"], done.stderr


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_signal_before_the_handlers_is_heard_when_the_entry_point_blocks_signals(
    tmp_path: Path, signum: signal.Signals
) -> None:
    """The init image's entry point keeps an early signal pending until the pull can report the signal."""
    log = tmp_path / "termination-log"
    env = {**os.environ, "MODELFETCH_TERMINATION_LOG": str(log)}
    command = [
        *ENTRY_POINT[:2],
        sys.executable,
        "-m",
        "modelfetch",
        "pull",
        "http://127.0.0.1:9/m",
        str(tmp_path / "m"),
    ]

    with subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL) as process:
        wait_for_program(process.pid, Path(sys.executable).resolve().name)
        process.send_signal(signum)  # Python has just been executed: no handler stands yet
        code = process.wait(30)

    assert code == 128 + signum
    assert json.loads(log.read_text())["reason"] == "interrupted"


def test_child_of_a_pull_has_no_blocked_signals(tmp_path: Path) -> None:
    """A program that issues credentials must still end by a signal."""
    done = subprocess.run(
        [*ENTRY_POINT[:2], sys.executable, "-c", BLOCKED_IN_CHILD],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )

    assert done.stdout == "0\n"


def wait_for_program(pid: int, name: str) -> None:
    """Wait until the process has executed a program."""
    for _ in range(1000):
        if Path(f"/proc/{pid}/exe").resolve().name == name:
            return
        time.sleep(0.001)
    raise TimeoutError(f"process {pid} does not run {name}")
