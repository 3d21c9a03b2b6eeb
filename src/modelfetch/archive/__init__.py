"""Archives: format recognition by content, member checks, extraction while the archive streams.

Extraction is complete and faithful or fails with an error; nothing is written outside the target directory; memory use
does not grow with the size of the content.

    base.py            budget, extracted member, forward reader
    extract.py         entry point: archive stream in, files out
    formats.py         format recognition by magic bytes
    decompress.py      forward-only streams, decompression in bounded pieces
    tar.py             tar headers and members
    zip.py             zip central directory and members
    extraction_dir.py  target directory: checks and writes each member
    symlinks.py        symlink resolution inside the archive
    gunzip.py          a single object stored with gzip encoding
"""

from modelfetch.archive.base import Budget, ForwardReader, Member
from modelfetch.archive.extract import extract_archive
from modelfetch.archive.gunzip import gunzip_file

__all__ = ["Budget", "ForwardReader", "Member", "extract_archive", "gunzip_file"]
