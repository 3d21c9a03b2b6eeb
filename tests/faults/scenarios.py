"""Scenarios of pulls: model versions, sources, and the destination before the pull."""

import io
import shutil
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Protocol

from modelfetch.volume import publish
from testkit.cli_runner import CliRunner
from testkit.file_tree import sha256_hex, write_files

State = dict[str, str]  # entry by path: a file with mode and sha256, a directory with mode, or a symlink


class ModelSource(Protocol):
    """Source of models: a bucket or a directory."""

    def put(self, key: str, data: bytes) -> None:
        """Store a file under a key."""
        ...

    def delete(self, key: str) -> None:
        """Remove the file under a key."""
        ...

    def uri(self, key: str = "") -> str:
        """Return the URI of a key, for `modelfetch`."""
        ...


@dataclass(frozen=True)
class ModelVersion:
    """A version of a model; a single file has the path `m`."""

    files: Mapping[str, bytes] = field(repr=False)
    links: Mapping[str, str] = field(default_factory=dict)
    executables: frozenset[str] = frozenset()
    directories: frozenset[str] = frozenset()  # possibly empty; like executables and links only in archives

    @cached_property
    def expected_state(self) -> State:
        """Return the expected state on the disk."""
        found = {
            path: f"file {'755' if path in self.executables else '644'} {sha256_hex(data)}"
            for path, data in self.files.items()
        }
        found |= {path: f"link {target}" for path, target in self.links.items()}
        above = {str(parent) for path in found for parent in Path(path).parents} - {"."}
        return found | dict.fromkeys(above | self.directories, "directory 755")

    @property
    def size(self) -> int:
        """Return the bytes of all files."""
        return sum(map(len, self.files.values()))

    def pack_archive(self) -> bytes:
        """Return the version as a tar.gz, the same bytes for equal versions."""
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
    """A pull and the state of its destination `volume/m` beforehand.

    Attributes:
        name: in plain words.
        kind: file, directory or archive.
        new: the version pulled.
        old: the version published by an earlier pull of the same source.
        foreign_files: foreign files, by path in the volume.
        empty_destination: whether the destination exists and is empty.
        parent_read_only: whether the directory above the destination is read-only, as under a `subPath`.
        pulled_alone: files of the model pulled alone before.
        other_entries: more entries of the volume, before and after.
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
        """Return the key of the model in its source."""
        return {"file": "m", "directory": "m/", "archive": "m.tar.gz"}[self.kind]

    @property
    def size(self) -> int:
        """Return the bytes of the model as stored."""
        return len(self.new.pack_archive()) if self.kind == "archive" else self.new.size

    @property
    def piecemeal(self) -> bool:
        """Tell whether publishing goes entry by entry: a directory with foreign entries cannot be exchanged.

        An empty directory may be foreign: receipts list files.
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
    """A scenario with a stored source and a template of the destination to copy any number of times."""

    scenario: Scenario
    uri: str
    template: Path
    can_exchange: bool

    def lay_out_destination(self, volume: Path) -> Path:
        """Copy the template to `volume`; return the destination."""
        shutil.copytree(self.template, volume, symlinks=True)
        if self.scenario.parent_read_only:
            volume.chmod(0o555)
        return volume / "m"


def prepare_scenario(
    scenario: Scenario, source: ModelSource, cli: CliRunner, directory: Path, env: Mapping[str, str]
) -> PreparedScenario:
    """Publish the scenario's old model into a template, and store the new model."""
    volume, uri = directory / "volume", source.uri(scenario.key)
    volume.mkdir(parents=True)
    write_files(volume, scenario.foreign_files)
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
