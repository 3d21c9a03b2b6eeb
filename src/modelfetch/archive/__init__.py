"""Archives: recognised by their content, vetted member by member, unpacked while they arrive.

Whatever the archive, it is unpacked whole and faithfully, or an error says why not; nothing is written outside the
directory it was given; memory does not grow with the size of what is packed.

    extract.py   the whole: bytes in, files out
    formats.py   recognition of a format by content
    streams.py   bytes in order, and their decompression in bounded pieces
    tarball.py   the members of a tar
    zipped.py    the members of a zip
    tree.py      the directory that is being filled
    gunzip.py    a single file that is stored compressed
    links.py     where a symbolic link leads
"""

from modelfetch.archive.base import Budget, ForwardReader, Member
from modelfetch.archive.extract import extract_archive
from modelfetch.archive.gunzip import gunzip_file

__all__ = ["Budget", "ForwardReader", "Member", "extract_archive", "gunzip_file"]
