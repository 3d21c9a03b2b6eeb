"""The scenes of the kill campaign: every way in which a model is published, and what makes a transfer long."""

from dataclasses import replace

from testkit import tree
from tests.faults.scenarios import Model, Scene

OLD = Model({"a.bin": tree.noise(3000, 1), "b/c.bin": tree.noise(3000, 2), "gone.txt": b"x", "gone/d.bin": b"y"})
NEW = Model({"a.bin": tree.noise(3000, 3), "b/c.bin": b"new", "b/deep/er/e.bin": tree.noise(2000, 4), "f.bin": b"1"})
FIFTY = Model({f"{number:02}.bin": tree.noise(2000, number) for number in range(50)})
OLD_PACKED = replace(OLD, links={"latest": "gone.txt"}, folders=frozenset({"b/empty"}))
NEW_PACKED = replace(
    NEW,
    files={**NEW.files, "run.sh": b"#!/bin/sh\n"},
    links={"latest": "f.bin"},
    programs=frozenset({"run.sh"}),
    folders=frozenset({"b/empty", "empty"}),
)
OLD_FILE, NEW_FILE = Model({"m": tree.noise(100_000, 5)}), Model({"m": tree.noise(9_000_000, 6)})
OTHERS = {"m/theirs.txt": b"stays", "m/b/theirs.txt": b"stays, too"}

LOCAL = [
    Scene("a file", "file", NEW_FILE),
    Scene("a file, updated", "file", NEW_FILE, old=OLD_FILE),
    Scene("a directory", "directory", NEW),
    Scene("a directory, into an empty one", "directory", NEW, empty=True),
    Scene("a directory, updated", "directory", NEW, old=OLD),
    Scene("a directory, updated beside strangers", "directory", NEW, old=OLD, strangers=OTHERS),
    Scene("a directory, under a locked parent", "directory", NEW, empty=True, locked=True),
    Scene("a directory, updated under a locked parent", "directory", NEW, old=OLD, locked=True),
    Scene("a directory, over files pulled alone", "directory", NEW, singles=("a.bin", "b/c.bin")),
    Scene("fifty files, updated beside strangers", "directory", FIFTY, old=OLD, strangers=OTHERS),
    Scene("an archive", "archive", NEW_PACKED),
    Scene("an archive, updated", "archive", NEW_PACKED, old=OLD_PACKED),
    Scene("an archive, updated beside strangers", "archive", NEW_PACKED, old=OLD_PACKED, strangers=OTHERS),
]
SHORT = (  # of the local ones: in the short form
    "a directory, updated beside strangers",
    "a directory, updated",
    "a file, updated",
    "an archive",
)

LARGE = Model({"m": tree.noise(32_000_000, 7)})
MANY = Model({f"{number:02}.bin": tree.noise(100_000, number) for number in range(50)})
BIG_ARCHIVE = Model({f"{number}.bin": tree.noise(2_000_000, number) for number in range(6)})
REMOTE = [
    Scene("a large object", "file", LARGE),
    Scene("a large object, updated", "file", LARGE, old=OLD_FILE),
    Scene("fifty objects, updated", "directory", MANY, old=OLD),
    Scene("a streamed tar.gz", "archive", BIG_ARCHIVE),
]
# How often each is struck down on each store.
TIMES = {"a large object": 130, "a large object, updated": 50, "fifty objects, updated": 70, "a streamed tar.gz": 60}
SHORT_TIMES = {"a large object": 1, "fifty objects, updated": 1}

CHANGING = Scene("an object that changes", "file", Model({"m": tree.noise(16_000_000, 8)}), old=OLD_FILE)
CHANGED = Model({"m": tree.noise(16_000_000, 9)})
