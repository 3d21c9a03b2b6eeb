"""The locked requirements that the images are made from."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOCKS = sorted(path.stem for path in (ROOT / "requirements").glob("*.txt"))
PIN = re.compile(r"^([a-z0-9-]+)==([^ ;\\]+)", re.MULTILINE)
NAME = re.compile(r"[A-Za-z0-9._-]+")


def text(lock: str) -> str:
    """The content of a lock."""
    return (ROOT / "requirements" / f"{lock}.txt").read_text()


def pins(lock: str) -> set[tuple[str, str]]:
    """Name and version of everything in a lock."""
    return set(PIN.findall(text(lock)))


def names(lock: str) -> set[str]:
    """The names of everything in a lock."""
    return {name for name, _ in pins(lock)}


def asked_for(section: str) -> set[str]:
    """The names that pyproject.toml asks for, in the dependencies or in an extra, as locks write them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = project["optional-dependencies"][section] if section else project["dependencies"]
    found = (NAME.match(line) for line in lines)
    return {re.sub(r"[._]", "-", match[0]).lower() for match in found if match} - {"modelfetch"}


@pytest.mark.parametrize("lock", LOCKS)
def test_every_pin_has_hashes_and_none_an_address(lock: str) -> None:
    """What is installed is what was locked, from wherever the builder's index is."""
    for block in re.split(r"\n(?=\S)", text(lock).strip()):
        assert PIN.match(block), block
        assert "--hash=sha256:" in block
    assert "://" not in text(lock)
    assert "--index" not in text(lock)


@pytest.mark.parametrize("lock", [lock for lock in LOCKS if lock != "dev"])
def test_images_hold_the_versions_that_are_tested(lock: str) -> None:
    """Each pin of an image is one of the developer's."""
    assert pins(lock) <= pins("dev")


@pytest.mark.parametrize(
    ("lock", "sections"),
    [
        ("init", [""]),
        ("sign", ["sign"]),
        ("app", ["serve", "sklearn"]),
        ("dev", ["", "serve", "sklearn", "sign", "dev"]),
    ],
)
def test_locks_hold_what_the_project_asks_for(lock: str, sections: list[str]) -> None:
    """A dependency added to pyproject.toml is in the lock as well: `make lock` was run."""
    assert set().union(*map(asked_for, sections)) <= names(lock)


def test_the_app_gets_nothing_of_the_fetchers() -> None:
    """No cloud SDK, no command-line library, no S3."""
    assert names("app").isdisjoint({"boto3", "botocore", "google-cloud-storage", "typer", "rich", "tenacity"})


@pytest.mark.parametrize(("lock", "without"), [("init-s3", "google"), ("init-gcs", "boto")])
def test_a_one_cloud_lock_lacks_only_the_other_cloud(lock: str, without: str) -> None:
    """All that it has, the lock for both has too."""
    assert pins(lock) < pins("init")
    assert [name for name in names(lock) if name.startswith(without)] == []
