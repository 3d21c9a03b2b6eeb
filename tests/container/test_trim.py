"""Packages of the init image after scripts/trim.py: smaller, with unchanged behaviour."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import botocore
import pytest
import rich

pytestmark = pytest.mark.process

ROOT = Path(__file__).parents[2]
BOTOCORE = Path(botocore.__file__).parent
PACKAGES = Path(rich.__file__).parents[1]
ANSWERS = ROOT / "testkit/botocore_snapshot.py"
SERVICE_CALL = re.compile(r"""(?:client_creator|create_nested_client)\(\s*(?:[\w.]+,\s*)?["']([\w-]+)["']""")
TRACEBACK_SCRIPT = """
import sys
from rich.console import Console
from rich.traceback import Traceback
try:
    raise ValueError("what it is about")
except ValueError:
    Console().print(Traceback(show_locals=True))
from pygments import lexers
print(lexers.__file__)
"""


@pytest.fixture(scope="module")
def trimmed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory for Python's path: trimmed copies of this environment's botocore and Pygments."""
    packages = tmp_path_factory.mktemp("trimmed")
    for package, part in (("botocore", "data"), ("pygments", "lexers")):
        (packages / package).mkdir()
        for entry in (PACKAGES / package).iterdir():
            if entry.name == part:
                shutil.copytree(entry, packages / package / part, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                (packages / package / entry.name).symlink_to(entry)
    subprocess.run([sys.executable, ROOT / "scripts/trim.py", packages], check=True, capture_output=True)
    return packages


def start_python(home: Path, *args: object, path: Path | None = None) -> "subprocess.Popen[str]":
    """Start Python without the caller's environment, and with a directory in front of the packages."""
    env = {"PATH": os.defpath, "HOME": str(home), "AWS_EC2_METADATA_DISABLED": "true", "COLUMNS": "100"}
    if path:
        env["PYTHONPATH"] = str(path)
    return subprocess.Popen([sys.executable, "-P", *map(str, args)], env=env, stdout=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def answers(trimmed: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Return the answers of the full and of the trimmed botocore."""
    homes = [tmp_path_factory.mktemp("full-home"), tmp_path_factory.mktemp("trimmed-home")]
    processes = [start_python(homes[0], ANSWERS), start_python(homes[1], ANSWERS, path=trimmed)]
    outputs = [process.communicate()[0] for process in processes]
    return [json.loads(text.replace(str(home), "HOME")) for text, home in zip(outputs, homes, strict=True)]


def test_trimmed_botocore_answers_like_the_full_package(trimmed: Path, answers: list[dict[str, Any]]) -> None:
    """Endpoints, regions, signatures, presigned URLs, models and requests of credential providers are equal."""
    full, trimmed_answers = answers

    assert (full["from"], trimmed_answers["from"]) == (botocore.__file__, str(trimmed / "botocore/__init__.py"))
    for kind in ("clients", "providers", "models"):
        assert full[kind].keys() == trimmed_answers[kind].keys()
        assert [name for name, answer in full[kind].items() if answer != trimmed_answers[kind][name]] == []


def test_compared_answers_differ_by_region_and_provider(answers: list[dict[str, Any]]) -> None:
    """The compared answers are real, not the same refusal everywhere."""
    trimmed_answers = answers[1]

    assert trimmed_answers["clients"]["s3 cn-north-1 {}"][0] == "https://s3.cn-north-1.amazonaws.com.cn"
    assert trimmed_answers["clients"]['sts us-gov-west-1 {"use_fips_endpoint": true}'][3] == "us-gov-west-1"
    requests = {name: str(answer) for name, answer in trimmed_answers["providers"].items()}
    assert "Action=AssumeRole&" in requests["assumed"]
    assert "Action=AssumeRoleWithWebIdentity&" in requests["web"]
    assert "portal.sso.eu-west-1" in requests["sso"]
    assert "oidc.us-gov-west-1" in requests["sso-session"]
    assert {"GetObject", "UploadPart", "AbortMultipartUpload"} <= trimmed_answers["models"]["s3"][0][
        "operations"
    ].keys()


def test_every_service_used_for_credentials_is_kept(trimmed: Path) -> None:
    """A provider of a newer botocore may call a service missing in the list."""
    source = "".join((BOTOCORE / name).read_text() for name in ("credentials.py", "tokens.py", "utils.py"))
    called = set(SERVICE_CALL.findall(source))

    assert called >= {"sts", "sso", "sso-oidc"}
    assert {"s3", *called} == {path.name for path in (trimmed / "botocore/data").iterdir() if path.is_dir()}


def test_trimmed_botocore_data_takes_less_than_1_mb(trimmed: Path) -> None:
    """The full data of botocore takes 28 MB."""
    data = trimmed / "botocore/data"

    assert sum(path.stat().st_size for path in data.rglob("*")) < 1_000_000
    assert list(data.rglob("*.gz")) == []


def test_rich_shows_a_traceback_with_the_trimmed_pygments(trimmed: Path, tmp_path: Path) -> None:
    """The Python lexer, which rich requests from Pygments, is kept."""
    shown = start_python(tmp_path, "-c", TRACEBACK_SCRIPT, path=trimmed).communicate()[0]

    assert "ValueError: what it is about" in shown
    assert shown.splitlines()[-1] == str(trimmed / "pygments/lexers/__init__.py")
