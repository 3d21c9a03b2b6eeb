"""Scenarios of the disk campaign: a small model of each kind, with an old version in its place."""

import io
import zipfile
from dataclasses import dataclass

from testkit.file_tree import random_bytes
from tests.faults.scenarios import ModelVersion, Scenario


@dataclass(frozen=True)
class ZippedVersion(ModelVersion):
    """A version in a zip archive: the format is detected by content, not by name."""

    def pack_archive(self) -> bytes:
        """Return the version as a zip archive."""
        sink = io.BytesIO()
        with zipfile.ZipFile(sink, "w") as archive:
            for path, data in self.files.items():
                archive.writestr(zipfile.ZipInfo(path), data, zipfile.ZIP_DEFLATED)
        return sink.getvalue()


OLD = {"config.json": b"{1}", "gone/old.bin": random_bytes(50_000, 1), "weights/0.bin": random_bytes(300_000, 2)}
NEW = {
    "config.json": b"{22}",
    "new/n.bin": b"n",
    "weights/0.bin": random_bytes(600_000, 3),
    "weights/1.bin": b"1" * 5000,
}
MANY = {f"{number:02}.bin": b"%d" % number for number in range(50)}
REPEATED = {f"{number}.bin": random_bytes(3000, number) * 70 for number in range(4)}  # compresses well
FOREIGN_FILES = {"m/mine.txt": b"mine", "m/weights/mine": b"mine"}
FILE, OLD_FILE = ModelVersion({"m": random_bytes(700_000, 4)}), ModelVersion({"m": random_bytes(300_000, 5)})

SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario("file", "file", FILE, old=OLD_FILE),
        Scenario("new file", "file", FILE),
        Scenario("directory", "directory", ModelVersion(NEW), old=ModelVersion(OLD)),
        Scenario("new directory", "directory", ModelVersion(NEW)),
        Scenario("mixed directory", "directory", ModelVersion(NEW), old=ModelVersion(OLD), foreign_files=FOREIGN_FILES),
        Scenario("50 files", "directory", ModelVersion(MANY), old=ModelVersion(OLD)),
        Scenario("tar.gz", "archive", ModelVersion(NEW), old=ModelVersion(OLD)),
        Scenario("mixed tar.gz", "archive", ModelVersion(NEW), old=ModelVersion(OLD), foreign_files=FOREIGN_FILES),
        Scenario("tar.gz of 50", "archive", ModelVersion(MANY), old=ModelVersion(OLD)),
        Scenario("zip", "archive", ZippedVersion(NEW), old=ZippedVersion(OLD)),
        Scenario("tar.gz that grows", "archive", ModelVersion(REPEATED), old=ModelVersion(OLD)),
        Scenario("zip that grows", "archive", ZippedVersion(REPEATED), old=ZippedVersion(OLD)),
        Scenario("large file", "file", ModelVersion({"m": random_bytes(12_000_000, 6)}), old=OLD_FILE),
    )
}
EVERY_KIND = ("file", "directory", "mixed directory", "tar.gz", "zip")
DIRECTORIES = ("directory", "mixed directory", "tar.gz")
