"""What a crash may leave behind for the next run: which parts of which files are on disk, each with its CRC.

A line is `[file, part, crc]`, or `[file, part, crc, checksums]` where the store stated those with the bytes and not in
its listing.
"""

import contextlib
import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

from modelfetch.volume.filesystem import disk_errors


class ResumeJournal:
    """An append-only list of parts, good for one plan.

    Attributes:
        done: the CRC noted for each (file, part); to be believed only after a look at the bytes.
        files: those of which an earlier run wrote parts.
        stated: the checksums that came with the bytes of a file.
    """

    def __init__(self, path: Path, plan: str) -> None:
        """Take up the journal at `path` if it is of this plan."""
        self.block_crcs: dict[tuple[str, int], int] = {}
        self.stated_checksums: dict[str, Mapping[str, str]] = {}
        self.resumable = False
        self._unrecorded_checksums: dict[str, Mapping[str, str]] = {}  # stated, and not noted yet
        self._path = path
        self._plan = plan
        self._lock = threading.Lock()
        self._file: TextIO | None = None
        self._load_lines()
        self.files = {file for file, _ in self.block_crcs}

    def _load_lines(self) -> None:
        try:
            head, *lines = self._path.read_text(encoding="utf-8").splitlines()
            self.resumable = json.loads(head) == {"plan": self._plan}
        except (OSError, ValueError, RecursionError):
            return  # none yet, or not even its head
        for line in lines if self.resumable else ():
            with contextlib.suppress(ValueError, TypeError, RecursionError):  # a line that a crash cut short
                file, block, crc, *stated = json.loads(line)
                if stated:
                    self.stated_checksums[file] = dict(*stated)
                self.block_crcs[file, block] = crc

    def open(self) -> None:
        """Begin to take notes; a journal of another plan is overwritten."""
        with disk_errors(self._path):
            self._file = self._path.open("a" if self.resumable else "w", encoding="utf-8", buffering=1)
            # A line that a crash cut short must not swallow the next one.
            self._file.write("\n" if self.resumable else json.dumps({"plan": self._plan}) + "\n")

    def record_block(self, file: str, block: int, crc: int) -> None:
        """Note that a part is written."""
        stated = [dict(checksums)] if (checksums := self._unrecorded_checksums.pop(file, None)) else []
        line = json.dumps([file, block, crc, *stated]) + "\n"
        assert self._file is not None
        with self._lock, disk_errors(self._path):
            self._file.write(line)

    def record_checksums(self, file: str, checksums: Mapping[str, str]) -> None:
        """Have the checksums that the store states of a file noted with its first part: before, nothing needs them."""
        self._unrecorded_checksums[file] = checksums

    def close(self) -> None:
        """Close the file; notes that are lost cost no more than a second download."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
            self._file = None
