"""What scripts/trim.py takes out of the init image's packages, and that nothing else is different for it."""

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
CALLED = re.compile(r"""(?:client_creator|create_nested_client)\(\s*(?:[\w.]+,\s*)?["']([\w-]+)["']""")
TRACEBACK = """
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
    """A directory to put on Python's path: this environment's botocore and Pygments with what is left of them."""
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


def python(home: Path, *args: object, path: Path | None = None) -> "subprocess.Popen[str]":
    """Start Python with nothing of the caller's environment, and with a directory in front of its packages."""
    env = {"PATH": os.defpath, "HOME": str(home), "AWS_EC2_METADATA_DISABLED": "true", "COLUMNS": "100"}
    if path:
        env["PYTHONPATH"] = str(path)
    return subprocess.Popen([sys.executable, "-P", *map(str, args)], env=env, stdout=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def answers(trimmed: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What all of botocore says, and what is left of it."""
    homes = [tmp_path_factory.mktemp("all"), tmp_path_factory.mktemp("left")]
    both = [python(homes[0], ANSWERS), python(homes[1], ANSWERS, path=trimmed)]
    said = [process.communicate()[0] for process in both]
    return [json.loads(text.replace(str(home), "HOME")) for text, home in zip(said, homes, strict=True)]


def test_what_is_left_of_botocore_answers_as_all_of_it_does(trimmed: Path, answers: list[dict[str, Any]]) -> None:
    """Endpoints, regions, signatures, presigned URLs, models and the credential providers' requests are the same."""
    everything, left = answers

    assert (everything["from"], left["from"]) == (botocore.__file__, str(trimmed / "botocore/__init__.py"))
    for kind in ("clients", "providers", "models"):
        assert everything[kind].keys() == left[kind].keys()
        assert [name for name, answer in everything[kind].items() if answer != left[kind][name]] == []


def test_the_answers_that_are_compared_tell_regions_and_providers_apart(answers: list[dict[str, Any]]) -> None:
    """The comparison is of real answers: not the same refusal everywhere."""
    said = answers[1]

    assert said["clients"]["s3 cn-north-1 {}"][0] == "https://s3.cn-north-1.amazonaws.com.cn"
    assert said["clients"]['sts us-gov-west-1 {"use_fips_endpoint": true}'][3] == "us-gov-west-1"
    asked = {name: str(answer) for name, answer in said["providers"].items()}
    assert "Action=AssumeRole&" in asked["assumed"]
    assert "Action=AssumeRoleWithWebIdentity&" in asked["web"]
    assert "portal.sso.eu-west-1" in asked["sso"]
    assert "oidc.us-gov-west-1" in asked["sso-session"]
    assert {"GetObject", "UploadPart", "AbortMultipartUpload"} <= said["models"]["s3"][0]["operations"].keys()


def test_every_service_that_botocore_asks_for_credentials_is_left(trimmed: Path) -> None:
    """A provider that a newer botocore brings may call a service that is not in the list yet."""
    source = "".join((BOTOCORE / name).read_text() for name in ("credentials.py", "tokens.py", "utils.py"))
    called = set(CALLED.findall(source))

    assert called >= {"sts", "sso", "sso-oidc"}
    assert {"s3", *called} == {path.name for path in (trimmed / "botocore/data").iterdir() if path.is_dir()}


def test_little_is_left(trimmed: Path) -> None:
    """The data of botocore takes less than 1 MB, not 28."""
    data = trimmed / "botocore/data"

    assert sum(path.stat().st_size for path in data.rglob("*")) < 1_000_000
    assert list(data.rglob("*.gz")) == []


def test_a_traceback_can_still_be_shown(trimmed: Path, tmp_path: Path) -> None:
    """What rich asks Pygments for, Python's lexer, is there."""
    shown = python(tmp_path, "-c", TRACEBACK, path=trimmed).communicate()[0]

    assert "ValueError: what it is about" in shown
    assert shown.splitlines()[-1] == str(trimmed / "pygments/lexers/__init__.py")
