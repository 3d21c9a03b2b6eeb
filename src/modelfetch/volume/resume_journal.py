"""Resume journal: blocks of files that are on disk, each with its CRC, for the next run after a crash.

A line is `[file, block, crc]`, or `[file, block, crc, checksums]` where the store stated checksums with the bytes and
not in its listing. The first line holds the plan's resume key.
"""

import contextlib
import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

from modelfetch.volume.filesystem import disk_errors


class ResumeJournal:
    """Append-only list of blocks written, valid for one plan.

    Attributes:
        block_crcs: CRC recorded for each (file, block); to be compared with the bytes on disk before use.
        files: names of the files with recorded blocks from an earlier run.
        resumable: whether the journal on disk belongs to this plan.
        stated_checksums: checksums that the store stated with a file's bytes, by file.
    """

    def __init__(self, path: Path, plan: str) -> None:
        """Load the journal at `path` if the plan is the same."""
        self.block_crcs: dict[tuple[str, int], int] = {}
        self.stated_checksums: dict[str, Mapping[str, str]] = {}
        self.resumable = False
        self._unrecorded_checksums: dict[str, Mapping[str, str]] = {}  # stated, not recorded yet
        self._path = path
        self._plan = plan
        self._lock = threading.Lock()
        self._file: TextIO | None = None
        self._load_lines()
        self.files = {file for file, _ in self.block_crcs}

    def _load_lines(self) -> None:
        """Read the header, then every line that is complete."""
        try:
            head, *lines = self._path.read_text(encoding="utf-8").splitlines()
            self.resumable = json.loads(head) == {"plan": self._plan}
        except (OSError, ValueError, RecursionError):
            return  # no journal yet, or an incomplete header
        for line in lines if self.resumable else ():
            with contextlib.suppress(ValueError, TypeError, RecursionError):  # a line torn by a crash
                file, block, crc, *stated = json.loads(line)
                if stated:
                    self.stated_checksums[file] = dict(*stated)
                self.block_crcs[file, block] = crc

    def open(self) -> None:
        """Open the journal for appending; a journal of another plan is overwritten."""
        with disk_errors(self._path):
            if not self.resumable:
                self._path.unlink(missing_ok=True)  # another writer's symlink is not followed
            self._file = self._path.open("a" if self.resumable else "x", encoding="utf-8", buffering=1)
            # A line torn by a crash must not swallow the next line.
            self._file.write("\n" if self.resumable else json.dumps({"plan": self._plan}) + "\n")

    def record_block(self, file: str, block: int, crc: int) -> None:
        """Record that a block is written to disk."""
        stated = [dict(checksums)] if (checksums := self._unrecorded_checksums.pop(file, None)) else []
        line = json.dumps([file, block, crc, *stated]) + "\n"
        assert self._file is not None
        with self._lock, disk_errors(self._path):
            self._file.write(line)

    def record_checksums(self, file: str, checksums: Mapping[str, str]) -> None:
        """Keep checksums stated by the store until the file's first block is recorded; no run needs them earlier."""
        self._unrecorded_checksums[file] = checksums

    def close(self) -> None:
        """Close the file; lost lines cost no more than a second download."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
            self._file = None
