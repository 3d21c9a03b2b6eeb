"""What a pull finds and what it must leave, for pulls that are struck down: models, destinations, and their judge."""

import io
import shutil
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Protocol

from modelfetch.volume import publish
from testkit import tree
from testkit.cli import Cli

State = dict[str, str]  # what is at each path: a file with its mode and sha256, a directory with its mode, or a link


class ModelSource(Protocol):
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
class ModelVersion:
    """A version of a model; a single file's has the one path `m`."""

    files: Mapping[str, bytes] = field(repr=False)
    links: Mapping[str, str] = field(default_factory=dict)
    executables: frozenset[str] = frozenset()
    directories: frozenset[str] = frozenset()  # that may be empty; only an archive can have them, or programs, or links

    @cached_property
    def expected_state(self) -> State:
        """How it must stand on the disk."""
        found = {
            path: f"file {'755' if path in self.executables else '644'} {tree.sha256(data)}"
            for path, data in self.files.items()
        }
        found |= {path: f"link {target}" for path, target in self.links.items()}
        above = {str(parent) for path in found for parent in Path(path).parents} - {"."}
        return found | dict.fromkeys(above | self.directories, "directory 755")

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(map(len, self.files.values()))

    def pack_archive(self) -> bytes:
        """It as a tar.gz, the same for the same model."""
        sink = io.BytesIO()
        with tarfile.open(fileobj=sink, mode="w:gz", compresslevel=1) as archive:
            for path, data in self.files.items():
                member = tarfile.TarInfo(path)
                member.size, member.mode = len(data), 0o755 if path in self.executables else 0o644
                archive.addfile(member, io.BytesIO(data))
            for path in self.directories:
                member = tarfile.TarInfo(path)
                member.type = tarfile.DIRTYPE
                archive.addfile(member)
            for path, target in self.links.items():
                member = tarfile.TarInfo(path)
                member.type, member.linkname = tarfile.SYMTYPE, target
                archive.addfile(member)
        return sink.getvalue()


@dataclass(frozen=True)
class Scenario:
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
    new: ModelVersion
    old: ModelVersion | None = None
    foreign_files: Mapping[str, bytes] = field(default_factory=dict)
    empty_destination: bool = False
    parent_read_only: bool = False
    pulled_alone: tuple[str, ...] = ()
    other_entries: State = field(default_factory=dict)

    @property
    def key(self) -> str:
        """What is pulled."""
        return {"file": "m", "directory": "m/", "archive": "m.tar.gz"}[self.kind]

    @property
    def size(self) -> int:
        """Bytes of what is pulled, as stored."""
        return len(self.new.pack_archive()) if self.kind == "archive" else self.new.size

    @property
    def piecemeal(self) -> bool:
        """Whether it is published entry by entry: what is not ours alone cannot be exchanged.

        An empty directory may be anybody's: receipts list files.
        """
        files = self.old.files if self.old else {}
        empty = [
            each
            for each in (self.old.directories if self.old else ())
            if not any(f.startswith(f"{each}/") for f in files)
        ]
        return (
            self.kind == "file"
            or self.parent_read_only
            or bool(self.foreign_files)
            or bool(self.pulled_alone)
            or bool(empty)
        )


@dataclass(frozen=True)
class PreparedScenario:
    """A scene whose source is there, and whose destination can be had any number of times."""

    scenario: Scenario
    uri: str
    template: Path
    can_exchange: bool

    def lay_out_destination(self, volume: Path) -> Path:
        """Lay out the destination anew; returns what to pull to."""
        shutil.copytree(self.template, volume, symlinks=True)
        if self.scenario.parent_read_only:
            volume.chmod(0o555)
        return volume / "m"


def prepare_scenario(
    scenario: Scenario, source: ModelSource, cli: Cli, directory: Path, env: Mapping[str, str]
) -> PreparedScenario:
    """Publish what the scene begins with into a template, and store what is to be pulled."""
    volume, uri = directory / "volume", source.uri(scenario.key)
    volume.mkdir(parents=True)
    tree.write(volume, scenario.foreign_files)
    if scenario.empty_destination:
        (volume / "m").mkdir(exist_ok=True)
    if scenario.old:
        _store_version(scenario, scenario.old, source)
        cli.ok("pull", uri, volume / "m", env=env)
        for path in set(scenario.old.files) - set(scenario.new.files) if scenario.kind == "directory" else ():
            source.delete(f"m/{path}")
    _store_version(scenario, scenario.new, source)
    for path in scenario.pulled_alone:
        cli.ok("pull", source.uri(f"m/{path}"), volume / "m" / path, env=env)
    return PreparedScenario(scenario, uri, volume, _can_exchange(directory))


def _store_version(scenario: Scenario, version: ModelVersion, source: ModelSource) -> None:
    if scenario.kind == "archive":
        source.put("m.tar.gz", version.pack_archive())
    else:
        for path, data in version.files.items():
            source.put(path if scenario.kind == "file" else f"m/{path}", data)


def _can_exchange(directory: Path) -> bool:
    one, other = directory / "one", directory / "other"
    one.mkdir()
    other.mkdir()
    return publish._rename_exchange(one, other)
