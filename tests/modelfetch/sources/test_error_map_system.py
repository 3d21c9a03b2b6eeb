"""Every error number of the operating system and every exception of a decompressor is classified."""

import bz2
import errno
import lzma
import os
import socket
import sys
import tarfile
import zipfile
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest
import urllib3.exceptions
from isal import igzip_lib

from modelfetch.archive import decompress as streams
from modelfetch.archive import tar as tarball
from modelfetch.archive import zip as zipped
from modelfetch.archive.base import Budget
from modelfetch.archive.decompress import ForwardBuffer
from modelfetch.archive.extraction_dir import ExtractionDir
from modelfetch.errors import (
    ArchiveError,
    ConfigError,
    CredentialsError,
    DestinationError,
    NotFoundError,
    RefusedError,
    TransientError,
    UnsafeNameError,
)
from modelfetch.net.network_errors import explain_network_error
from modelfetch.push import local_model
from modelfetch.sources import file as file_source
from modelfetch.volume import filesystem
from modelfetch.volume.staged_tree import StagedTree
from testkit.error_assertions import assert_error_contract, translate_error, translate_read_error
from testkit.library_errors import CONNECTION, find_exceptions, max_retry_error

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

ERRNOS = sorted(errno.errorcode)
NAMED = {errno.ENAMETOOLONG, errno.EILSEQ}  # what is wrong is the name
FILES = {errno.ENOENT, errno.EISDIR, errno.ENOTDIR, errno.EACCES, errno.EPERM}  # of certificates: no connection's
MISSING = {errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG}


def os_error(number: int) -> OSError:
    """Return an error as raised by the operating system."""
    return OSError(number, os.strerror(number), "/models/m")


def test_every_error_of_the_destination_is_explained() -> None:
    """73, but for names 65; with the file and a next step."""
    for number in ERRNOS:
        told = translate_error(os_error(number), lambda: filesystem.disk_errors("/models"))
        assert_error_contract(told, UnsafeNameError if number in NAMED else DestinationError)
        assert "/models/m" in told.message


def test_every_error_of_a_local_source_is_explained() -> None:
    """Exit code 66 for a missing file, 77 for a forbidden file, 69 otherwise."""
    for number in ERRNOS:
        denied = CredentialsError if number in (errno.EACCES, errno.EPERM) else RefusedError
        found = file_source._explain_error(os_error(number), Path("/models/m"))
        assert_error_contract(found, NotFoundError if number in MISSING else denied)
        pushed = translate_error(os_error(number), lambda: local_model.explain_read_errors(Path("/models/m")))
        assert_error_contract(pushed, denied)
        assert "/models/m" in found.message
        assert "/models/m" in pushed.message


def test_every_error_of_a_connection_is_explained() -> None:
    """75: networks heal. Only certificates are files, and 78; a firewall's EPERM is no file's."""
    for number in ERRNOS:
        bare = OSError(number, os.strerror(number))
        connecting = urllib3.exceptions.NewConnectionError(CONNECTION, "x")
        connecting.__cause__ = bare
        assert_error_contract(translate_read_error(bare), ConfigError if number in FILES else TransientError)
        assert_error_contract(explain_network_error(max_retry_error(connecting), "store.invalid", 5.0), TransientError)


def test_every_name_resolution_failure_is_transient() -> None:
    """Exit code 75: in a new pod the name service may not be up."""
    for number in {value for name, value in vars(socket).items() if name.startswith("EAI_")}:
        told = explain_network_error(socket.gaierror(number, "x"), "store.invalid", 5.0)
        assert_error_contract(told, TransientError)
        assert "name" in told.message


# --- archives -------------------------------------------------------------------------------------------------------


def module_of(kind: str) -> tuple[ModuleType, str, tuple[type[Exception], ...]]:
    """Return a codec's module, the module name of the codec's exceptions, and further exceptions."""
    return {
        "gzip": (igzip_lib, "igzip_lib", ()),
        "deflate": (igzip_lib, "igzip_lib", ()),
        "bzip2": (bz2, "bz2", (OSError, ValueError)),
        "xz": (lzma, "_lzma", ()),
        "zstd": (zstd, zstd.__name__, ()),
    }[kind]


@pytest.mark.parametrize("kind", ["gzip", "deflate", "bzip2", "xz", "zstd"])
def test_every_error_of_a_decompressor_is_a_damaged_archive(kind: str) -> None:
    """Exit code 65, with the archive's name."""
    module, home, others = module_of(kind)
    raised = [*find_exceptions(module, home).values(), *others]
    assert raised

    for error in raised:
        codec = streams.load_codec(kind)._replace(new_decompressor=partial(Broken, error("x")))
        with pytest.raises(ArchiveError):
            list(streams.decompress_stream(iter([b"x"]), codec))


class Broken:
    """Decompressor that fails with a given exception."""

    eof, needs_input, unused_data = False, True, b""

    def __init__(self, error: Exception) -> None:
        """Take the exception to raise."""
        self._error = error

    def decompress(self, data: bytes, /, max_length: int = -1) -> bytes:
        """Raise the exception of the test."""
        raise self._error


TAR_UNREACHED = """
    AbsoluteLinkError AbsolutePathError CompressionError ExtractError FilterError LinkOutsideDestinationError
    OutsideDestinationError ReadError SpecialFileError StreamError TarError"""  # of TarFile, which reads nothing here


@pytest.mark.parametrize("kind", [k for k in find_exceptions(tarfile).values() if issubclass(k, tarfile.HeaderError)])
def test_every_error_of_a_tars_header_is_a_damaged_archive(
    monkeypatch: pytest.MonkeyPatch, kind: type[Exception]
) -> None:
    """Exit code 65, with the archive's name."""

    def fail(*_: object) -> None:
        raise kind("x")

    monkeypatch.setattr(tarfile.TarInfo, "frombuf", fail)
    with pytest.raises(ArchiveError):
        tarball._decode_header(bytes(512))


def test_every_error_of_tarfile_is_decided_on() -> None:
    """A header's, or none that can reach us."""
    headers = {name for name, kind in find_exceptions(tarfile).items() if issubclass(kind, tarfile.HeaderError)}

    assert set(find_exceptions(tarfile)) - headers == set(TAR_UNREACHED.split())


@pytest.mark.parametrize(
    "kind", [zipfile.BadZipFile, ValueError, NotImplementedError, EOFError, UnicodeDecodeError, OverflowError]
)
def test_every_error_of_a_zips_directory_is_a_damaged_archive(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: type[Exception]
) -> None:
    """65; LargeZipFile is of writing."""
    assert set(find_exceptions(zipfile)) == {"BadZipFile", "LargeZipFile"}
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("m", b"x")

    def fail(*_: object, **__: object) -> None:
        raise kind("utf-8", b"x", 0, 1, "x") if kind is UnicodeDecodeError else kind("x")

    monkeypatch.setattr(zipfile, "ZipFile", fail)
    tree = ExtractionDir(StagedTree(tmp_path), Budget(1000, 10, 10))
    with pytest.raises(ArchiveError):
        zipped.extract_zip(ForwardBuffer(iter([path.read_bytes()])), tmp_path / "scratch", tree)
