"""Start of the process: no time for garbage collection and unused libraries before a model is asked for."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.process

COUNTED = """
import gc
from modelfetch.__main__ import main
gc.set_debug(gc.DEBUG_STATS)
main()
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
