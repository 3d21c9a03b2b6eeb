"""How the process begins: what it does not spend time on before a model is asked for."""

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
OPENED = """
import gc
gc.disable()
from modelfetch.errors import NoCredentialsError
from modelfetch.sources import open_source
from modelfetch.sources import parse_uri
from modelfetch.sources.s3.spec import S3Options
try:
    open_source(parse_uri({uri!r}), S3Options(region="us-east-1"))
    print("opened")
except NoCredentialsError:
    print("refused")
print(gc.isenabled(), gc.get_freeze_count() > 0)
"""


def python(code: str, *args: str) -> "subprocess.CompletedProcess[str]":
    """A fresh interpreter; one that knows no credentials."""
    nobody = {"AWS_EC2_METADATA_DISABLED": "true", "HOME": "/nonexistent", "PATH": ""}
    return subprocess.run(
        [sys.executable, "-c", code, *args], env=nobody, capture_output=True, text=True, check=False, timeout=120
    )


def test_no_garbage_is_looked_for_while_the_process_starts(tmp_path: Path) -> None:
    """It would take an eighth of a small model's pull: nearly all that libraries make as they load stays."""
    (tmp_path / "model").write_bytes(b"weights")

    done = python(COUNTED, "pull", str(tmp_path / "model"), str(tmp_path / "there"))

    assert done.returncode == 0
    assert "Fetching" in done.stderr
    assert "gc: collecting" not in done.stderr.partition('"message": "Fetching')[0]


@pytest.mark.parametrize(
    ("uri", "told"), [("file:///model", "opened"), ("s3://bucket/model", "refused")], ids=["opened", "refused"]
)
def test_garbage_is_collected_once_a_store_was_opened(uri: str, told: str) -> None:
    """Or could not be: another try may follow. What the start has made is left out."""
    done = python(OPENED.format(uri=uri))

    assert done.stdout.split() == [told, "True", "True"], done.stderr


def test_what_reads_from_s3_does_without_boto3() -> None:
    """Only uploads need its transfer manager, which loads another hundred modules."""
    done = python("import sys, modelfetch.sources.s3.source; print('botocore' in sys.modules, 'boto3' in sys.modules)")

    assert done.stdout.split() == ["True", "False"], done.stderr


def test_what_reads_from_gcs_anonymously_does_without_googles_libraries() -> None:
    """They take longer to load than a small model to come; only credentials, uploads and refusals need them."""
    done = python(
        "import sys\n"
        "from modelfetch.sources import SourceOptions, open_source, parse_uri\n"
        "open_source(parse_uri('gs://bucket/model'), SourceOptions(anonymous=True))\n"
        "print('modelfetch.sources.gcs.source' in sys.modules, 'google' in sys.modules, 'requests' in sys.modules)"
    )

    assert done.stdout.split() == ["True", "False", "False"], done.stderr
