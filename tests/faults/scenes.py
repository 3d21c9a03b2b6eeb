"""What a pull finds and what it must leave, for pulls that are struck down: models, destinations, and their judge."""

import hashlib
import io
import os
import shutil
import stat
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Protocol

from modelfetch.errors import ModelfetchError, WrongBytesError
from modelfetch.verify import verify
from modelfetch.volume import publish
from modelfetch.volume import receipt as receipts
from testkit.cli_runner import CliRunner
from testkit.file_tree import RECEIPT_NAME, STAGING_NAME, sha256_hex, write_files

State = dict[str, str]  # what is at each path: a file with its mode and sha256, a directory with its mode, or a link


class Source(Protocol):
    """Where the models are: a bucket, or a directory."""

    def put(self, key: str, data: bytes) -> None:
        """Store a file."""
        ...

    def delete(self, key: str) -> None:
        """Remove one."""
        ...

    def uri(self, key: str = "") -> str:
        """How `modelfetch` is told of it."""
        ...


@dataclass(frozen=True)
class Model:
    """A version of a model; a single file's has the one path `m`."""

    files: Mapping[str, bytes] = field(repr=False)
    links: Mapping[str, str] = field(default_factory=dict)
    programs: frozenset[str] = frozenset()
    folders: frozenset[str] = frozenset()  # that may be empty; only an archive can have them, or programs, or links

    @cached_property
    def state(self) -> State:
        """How it must stand on the disk."""
        found = {
            path: f"file {'755' if path in self.programs else '644'} {sha256_hex(data)}"
            for path, data in self.files.items()
        }
        found |= {path: f"link {target}" for path, target in self.links.items()}
        above = {str(parent) for path in found for parent in Path(path).parents} - {"."}
        return found | dict.fromkeys(above | self.folders, "directory 755")

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(map(len, self.files.values()))

    def packed(self) -> bytes:
        """It as a tar.gz, the same for the same model."""
        sink = io.BytesIO()
        with tarfile.open(fileobj=sink, mode="w:gz", compresslevel=1) as archive:
            for path, data in self.files.items():
                member = tarfile.TarInfo(path)
                member.size, member.mode = len(data), 0o755 if path in self.programs else 0o644
                archive.addfile(member, io.BytesIO(data))
            for path in self.folders:
                member = tarfile.TarInfo(path)
                member.type = tarfile.DIRTYPE
                archive.addfile(member)
            for path, target in self.links.items():
                member = tarfile.TarInfo(path)
                member.type, member.linkname = tarfile.SYMTYPE, target
                archive.addfile(member)
        return sink.getvalue()


@dataclass(frozen=True)
class Scene:
    """A pull, and what it finds at its destination `volume/m`.

    Attributes:
        name: in plain words.
        kind: file, directory or archive.
        new: what is pulled.
        old: what an earlier pull of the same source published there.
        strangers: files of others, by their path in the volume.
        empty: whether the destination is there, and empty.
        locked: whether the directory above the destination cannot be written, as under a `subPath`.
        singles: files of the model that were pulled alone before.
        others: what else is to be found in the volume, before and after.
    """

    name: str
    kind: str
    new: Model
    old: Model | None = None
    strangers: Mapping[str, bytes] = field(default_factory=dict)
    empty: bool = False
    locked: bool = False
    singles: tuple[str, ...] = ()
    others: State = field(default_factory=dict)

    @property
    def key(self) -> str:
        """What is pulled."""
        return {"file": "m", "directory": "m/", "archive": "m.tar.gz"}[self.kind]

    @property
    def size(self) -> int:
        """Bytes of what is pulled, as stored."""
        return len(self.new.packed()) if self.kind == "archive" else self.new.size

    @property
    def piecemeal(self) -> bool:
        """Whether it is published entry by entry: what is not ours alone cannot be exchanged.

        An empty directory may be anybody's: receipts list files.
        """
        files = self.old.files if self.old else {}
        empty = [
            each for each in (self.old.folders if self.old else ()) if not any(f.startswith(f"{each}/") for f in files)
        ]
        return self.kind == "file" or self.locked or bool(self.strangers) or bool(self.singles) or bool(empty)


@dataclass(frozen=True)
class Prepared:
    """A scene whose source is there, and whose destination can be had any number of times."""

    scene: Scene
    uri: str
    template: Path
    exchanging: bool

    def fresh(self, volume: Path) -> Path:
        """Lay out the destination anew; returns what to pull to."""
        shutil.copytree(self.template, volume, symlinks=True)
        if self.scene.locked:
            volume.chmod(0o555)
        return volume / "m"


def prepare(scene: Scene, source: Source, cli: CliRunner, at: Path, env: Mapping[str, str]) -> Prepared:
    """Publish what the scene begins with into a template, and store what is to be pulled."""
    volume, uri = at / "volume", source.uri(scene.key)
    volume.mkdir(parents=True)
    write_files(volume, scene.strangers)
    if scene.empty:
        (volume / "m").mkdir(exist_ok=True)
    if scene.old:
        _store(scene, scene.old, source)
        cli.ok("pull", uri, volume / "m", env=env)
        for path in set(scene.old.files) - set(scene.new.files) if scene.kind == "directory" else ():
            source.delete(f"m/{path}")
    _store(scene, scene.new, source)
    for path in scene.singles:
        cli.ok("pull", source.uri(f"m/{path}"), volume / "m" / path, env=env)
    return Prepared(scene, uri, volume, _can_exchange(at))


def _store(scene: Scene, model: Model, source: Source) -> None:
    if scene.kind == "archive":
        source.put("m.tar.gz", model.packed())
    else:
        for path, data in model.files.items():
            source.put(path if scene.kind == "file" else f"m/{path}", data)


def _can_exchange(at: Path) -> bool:
    one, other = at / "one", at / "other"
    one.mkdir()
    other.mkdir()
    return publish._rename_exchange(one, other)


def state(root: Path) -> State:
    """What stands below a directory, staging areas left out."""
    found = {}
    for here, folders, files in os.walk(root):
        if STAGING_NAME in folders:
            folders.remove(STAGING_NAME)
        for name in {*folders, *files} - {STAGING_NAME}:  # which may be a link, and no directory
            path = Path(here, name)
            found[path.relative_to(root).as_posix()] = _entry(path)
    return found


def _entry(path: Path) -> str:
    if path.is_symlink():
        return f"link {path.readlink()}"
    mode = f"{stat.S_IMODE(path.stat().st_mode):o}"
    if path.is_dir():
        return f"directory {mode}"
    if not path.is_file():
        return f"something else {mode}"
    return f"file {mode} {hashlib.sha256(path.read_bytes()).hexdigest()}"


def seen(prepared: Prepared, volume: Path) -> tuple[str, list[str]]:
    """What a reader sees at a destination at any moment: the old model, the new one or none, and what must not be."""
    scene, there = prepared.scene, state(volume)
    said = [path for path, entry in there.items() if path.endswith(RECEIPT_NAME) and entry.startswith("file")]
    flaws = [flaw for path in said for flaw in _untrue(volume / path)]
    flaws += [f"a stranger's {path} was touched" for path in scene.strangers if path not in there]
    if f"m/{RECEIPT_NAME}" not in said and f"m{RECEIPT_NAME}" not in said:
        return "none", flaws + _of_nothing(prepared, there)
    bare = {path: entry for path, entry in there.items() if not path.endswith(RECEIPT_NAME)}
    for name, model in (("old", scene.old), ("new", scene.new)):
        if model and bare == _whole(scene, model):
            return name, flaws
    return "a mixture", [*flaws, f"there is a receipt, and beside it {sorted(bare)}, which is no version of the model"]


def _untrue(receipt: Path) -> list[str]:
    """What a receipt says that is not so: by our own look, and by `modelfetch verify`."""
    wrong = []
    try:
        said = receipts.read_receipt(receipt)
    except WrongBytesError:
        return []  # nothing that anyone would believe
    for entry in said.files:
        path = receipt.parent / entry.path
        if not path.is_file() or sha256_hex(path.read_bytes()) != entry.sha256:
            wrong.append(f"{receipt.name} lists {entry.path}, which is not so")
    try:
        verify(
            receipt.parent if receipt.name == RECEIPT_NAME else receipt.with_name(receipt.name[: -len(RECEIPT_NAME)])
        )
    except ModelfetchError as error:
        wrong.append(error.message)
    return wrong


def _whole(scene: Scene, model: Model) -> State:
    """What a volume with a model holds; receipts left out."""
    others = {path: f"file 644 {sha256_hex(data)}" for path, data in scene.strangers.items()}
    above = {str(parent) for path in others for parent in Path(path).parents} - {"."}
    others |= dict.fromkeys(above, "directory 755")
    if scene.kind == "file":
        return others | model.state | scene.others
    model_state = {f"m/{path}": entry for path, entry in model.state.items()}
    return others | {"m": "directory 755"} | model_state | scene.others


def _of_nothing(prepared: Prepared, there: State) -> list[str]:
    """What must not be where there is no receipt."""
    scene, begin = prepared.scene, state(prepared.template)
    if not scene.piecemeal:
        if scene.old and prepared.exchanging:
            return ["the old model is gone, and the new one is not there yet"]
        return [] if there == begin else [f"without a receipt there is {sorted(there)}"]
    ours = scene.new.state.keys() | (scene.old.state.keys() if scene.old else set())
    known = begin.keys() | (ours if scene.kind == "file" else {f"m/{path}" for path in ours})
    return [f"there is a foreign {path}" for path in there.keys() - known]


def at_the_end(prepared: Prepared, volume: Path) -> list[str]:
    """What is wrong after a pull that says it succeeded."""
    name, flaws = seen(prepared, volume)
    if name != "new":
        flaws.append(f"after a pull that succeeded, the destination holds {name}")
    left = [path for area in volume.rglob(STAGING_NAME) for path in area.rglob("*")]
    orphans = [path for path in left if path.is_dir() or path.suffix != ".lock" or path.lstat().st_size]
    found = [path for path in state(volume) if path.endswith(RECEIPT_NAME)]
    if len(found) != 1:
        flaws.append(f"the receipts are {found}")
    return flaws + [f"{path.relative_to(volume)} is left" for path in orphans]
