"""Scenarios of the kill campaign: every way of publishing a model, and every kind of long transfer."""

from dataclasses import replace

from testkit.file_tree import random_bytes
from tests.faults.scenarios import ModelVersion, Scenario

OLD = ModelVersion(
    {"a.bin": random_bytes(3000, 1), "b/c.bin": random_bytes(3000, 2), "gone.txt": b"x", "gone/d.bin": b"y"}
)
NEW = ModelVersion(
    {"a.bin": random_bytes(3000, 3), "b/c.bin": b"new", "b/deep/er/e.bin": random_bytes(2000, 4), "f.bin": b"1"}
)
FIFTY = ModelVersion({f"{number:02}.bin": random_bytes(2000, number) for number in range(50)})
OLD_ARCHIVE = replace(OLD, links={"latest": "gone.txt"}, directories=frozenset({"b/empty"}))
NEW_ARCHIVE = replace(
    NEW,
    files={**NEW.files, "run.sh": b"#!/bin/sh\n"},
    links={"latest": "f.bin"},
    executables=frozenset({"run.sh"}),
    directories=frozenset({"b/empty", "empty"}),
)
OLD_FILE, NEW_FILE = ModelVersion({"m": random_bytes(100_000, 5)}), ModelVersion({"m": random_bytes(9_000_000, 6)})
FOREIGN_FILES = {"m/theirs.txt": b"stays", "m/b/theirs.txt": b"stays, too"}

LOCAL = [
    Scenario("a file", "file", NEW_FILE),
    Scenario("a file, updated", "file", NEW_FILE, old=OLD_FILE),
    Scenario("a directory", "directory", NEW),
    Scenario("a directory, into an empty one", "directory", NEW, empty_destination=True),
    Scenario("a directory, updated", "directory", NEW, old=OLD),
    Scenario("a directory, updated beside foreign files", "directory", NEW, old=OLD, foreign_files=FOREIGN_FILES),
    Scenario("a directory, under a locked parent", "directory", NEW, empty_destination=True, parent_read_only=True),
    Scenario("a directory, updated under a locked parent", "directory", NEW, old=OLD, parent_read_only=True),
    Scenario("a directory, over files pulled alone", "directory", NEW, pulled_alone=("a.bin", "b/c.bin")),
    Scenario("fifty files, updated beside foreign files", "directory", FIFTY, old=OLD, foreign_files=FOREIGN_FILES),
    Scenario("an archive", "archive", NEW_ARCHIVE),
    Scenario("an archive, updated", "archive", NEW_ARCHIVE, old=OLD_ARCHIVE),
    Scenario(
        "an archive, updated beside foreign files", "archive", NEW_ARCHIVE, old=OLD_ARCHIVE, foreign_files=FOREIGN_FILES
    ),
]
SHORT_LOCAL = (  # the local scenarios of the short form
    "a directory, updated beside foreign files",
    "a directory, updated",
    "a file, updated",
    "an archive",
)

LARGE = ModelVersion({"m": random_bytes(32_000_000, 7)})
MANY = ModelVersion({f"{number:02}.bin": random_bytes(100_000, number) for number in range(50)})
BIG_ARCHIVE = ModelVersion({f"{number}.bin": random_bytes(2_000_000, number) for number in range(6)})
REMOTE = [
    Scenario("a large object", "file", LARGE),
    Scenario("a large object, updated", "file", LARGE, old=OLD_FILE),
    Scenario("fifty objects, updated", "directory", MANY, old=OLD),
    Scenario("a streamed tar.gz", "archive", BIG_ARCHIVE),
]
# Kills per scenario on each store.
KILL_COUNTS = {
    "a large object": 130,
    "a large object, updated": 50,
    "fifty objects, updated": 70,
    "a streamed tar.gz": 60,
}
SHORT_KILL_COUNTS = {"a large object": 1, "fifty objects, updated": 1}

CHANGING = Scenario("an object that changes", "file", ModelVersion({"m": random_bytes(16_000_000, 8)}), old=OLD_FILE)
CHANGED = ModelVersion({"m": random_bytes(16_000_000, 9)})
