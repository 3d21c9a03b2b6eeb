"""Locked requirements of the images."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOCKS = sorted(path.stem for path in (ROOT / "requirements").glob("*.txt"))
PIN = re.compile(r"^([a-z0-9-]+)==([^ ;\\]+)", re.MULTILINE)
NAME = re.compile(r"[A-Za-z0-9._-]+")


def read_lock(lock: str) -> str:
    """Return the content of a lock file."""
    return (ROOT / "requirements" / f"{lock}.txt").read_text()


def read_pins(lock: str) -> set[tuple[str, str]]:
    """Return name and version of every package in a lock file."""
    return set(PIN.findall(read_lock(lock)))


def read_names(lock: str) -> set[str]:
    """Return the names of all packages in a lock file."""
    return {name for name, _ in read_pins(lock)}


def required_names(section: str) -> set[str]:
    """Return the packages of a section of pyproject.toml (dependencies or an extra), normalised as in lock files."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = project["optional-dependencies"][section] if section else project["dependencies"]
    found = (NAME.match(line) for line in lines)
    return {re.sub(r"[._]", "-", match[0]).lower() for match in found if match} - {"modelfetch"}


@pytest.mark.parametrize("lock", LOCKS)
def test_every_pin_has_a_hash_and_no_url(lock: str) -> None:
    """The locked files are installed, from any package index."""
    for block in re.split(r"\n(?=\S)", read_lock(lock).strip()):
        assert PIN.match(block), block
        assert "--hash=sha256:" in block
    assert "://" not in read_lock(lock)
    assert "--index" not in read_lock(lock)


@pytest.mark.parametrize("lock", [lock for lock in LOCKS if lock != "dev"])
def test_pins_of_the_images_are_pins_of_the_dev_lock(lock: str) -> None:
    """Images hold the package versions of the tests."""
    assert read_pins(lock) <= read_pins("dev")


@pytest.mark.parametrize(
    ("lock", "sections"),
    [
        ("init", [""]),
        ("sign", ["sign"]),
        ("app", ["serve", "sklearn"]),
        ("dev", ["", "serve", "sklearn", "sign", "dev"]),
    ],
)
def test_locks_hold_every_dependency_of_pyproject(lock: str, sections: list[str]) -> None:
    """A dependency added to pyproject.toml needs `make lock`."""
    assert set().union(*map(required_names, sections)) <= read_names(lock)


def test_app_lock_has_no_package_of_the_fetcher() -> None:
    """No cloud SDK, no command-line library, no S3 client."""
    assert read_names("app").isdisjoint({"boto3", "botocore", "google-cloud-storage", "typer", "rich", "tenacity"})


@pytest.mark.parametrize(("lock", "without"), [("init-s3", "google"), ("init-gcs", "boto")])
def test_one_cloud_lock_lacks_only_the_other_cloud(lock: str, without: str) -> None:
    """Every pin of a one-cloud lock is in the lock for both clouds."""
    assert read_pins(lock) < read_pins("init")
    assert [name for name in read_names(lock) if name.startswith(without)] == []
