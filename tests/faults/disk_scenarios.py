"""The scenes of the disk campaign: a small model of each kind, and an old one in its place."""

import io
import zipfile
from dataclasses import dataclass

from testkit import tree
from tests.faults.scenarios import Model, Scene


@dataclass(frozen=True)
class Zipped(Model):
    """A model whose archive is a zip: the content decides, whatever the name says."""

    def packed(self) -> bytes:
        """It as a zip."""
        sink = io.BytesIO()
        with zipfile.ZipFile(sink, "w") as archive:
            for path, data in self.files.items():
                archive.writestr(zipfile.ZipInfo(path), data, zipfile.ZIP_DEFLATED)
        return sink.getvalue()


OLD = {"config.json": b"{1}", "gone/old.bin": tree.noise(50_000, 1), "weights/0.bin": tree.noise(300_000, 2)}
NEW = {"config.json": b"{22}", "new/n.bin": b"n", "weights/0.bin": tree.noise(600_000, 3), "weights/1.bin": b"1" * 5000}
MANY = {f"{number:02}.bin": b"%d" % number for number in range(50)}
REPEATED = {f"{number}.bin": tree.noise(3000, number) * 70 for number in range(4)}  # which compresses well
OTHERS = {"m/mine.txt": b"mine", "m/weights/mine": b"mine"}
FILE, OLD_FILE = Model({"m": tree.noise(700_000, 4)}), Model({"m": tree.noise(300_000, 5)})

SCENES = {
    scene.name: scene
    for scene in (
        Scene("file", "file", FILE, old=OLD_FILE),
        Scene("new file", "file", FILE),
        Scene("directory", "directory", Model(NEW), old=Model(OLD)),
        Scene("new directory", "directory", Model(NEW)),
        Scene("mixed directory", "directory", Model(NEW), old=Model(OLD), strangers=OTHERS),
        Scene("50 files", "directory", Model(MANY), old=Model(OLD)),
        Scene("tar.gz", "archive", Model(NEW), old=Model(OLD)),
        Scene("mixed tar.gz", "archive", Model(NEW), old=Model(OLD), strangers=OTHERS),
        Scene("tar.gz of 50", "archive", Model(MANY), old=Model(OLD)),
        Scene("zip", "archive", Zipped(NEW), old=Zipped(OLD)),
        Scene("tar.gz that grows", "archive", Model(REPEATED), old=Model(OLD)),
        Scene("zip that grows", "archive", Zipped(REPEATED), old=Zipped(OLD)),
        Scene("large file", "file", Model({"m": tree.noise(12_000_000, 6)}), old=OLD_FILE),
    )
}
EACH = ("file", "directory", "mixed directory", "tar.gz", "zip")
DIRECTORIES = ("directory", "mixed directory", "tar.gz")
