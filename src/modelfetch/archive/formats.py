"""Format recognition by content: magic bytes, or a valid tar header."""

HEAD_BYTES = 512  # bytes that `recognise_format` needs to tell every format

_FORMAT_MAGICS = (
    (b"\x1f\x8b", "gzip"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    *((bytes([low]) + b"\x2a\x4d\x18", "zstd") for low in range(0x50, 0x60)),  # a skippable frame: RFC 8878, 3.1.2
    (b"PK\x03\x04", "zip"),
    (b"PK\x05\x06", "zip"),  # a zip without members
)
_OTHER_MAGICS = (  # common uploads under an archive's name by mistake; for the message only
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"Rar!", "a rar archive"),
    (b"\x04\x22\x4d\x18", "lz4 data"),
    (b"\x89HDF", "an HDF5 file"),
    (b"GGUF", "a GGUF model"),
    (b"\x80", "a pickle"),
    (b"<", "an HTML or XML page"),
    (b"{", "a JSON document"),
)


def recognise_format(head: bytes) -> str:
    """Return `tar`, `zip`, `gzip`, `bzip2`, `xz` or `zstd`; empty for any other content.

    Args:
        head: the first 512 bytes, or the whole content if shorter.
    """
    if is_tar_header(head):
        return "tar"
    return next((name for magic, name in _FORMAT_MAGICS if head.startswith(magic)), "")


def is_tar_header(head: bytes) -> bool:
    """Return whether `head` is the first block of a tar: valid, empty, or damaged but with the `ustar` magic."""
    if len(head) < HEAD_BYTES:
        return False
    if head[257:262] == b"ustar" or not any(head):
        return True
    import tarfile  # noqa: PLC0415  on demand: most pulls see no archive, and start-up time dominates them

    try:
        tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


def describe_content(head: bytes) -> str:
    """Describe content of an unsupported format, for an error message."""
    if not head:
        return "empty"
    return next((name for magic, name in _OTHER_MAGICS if head.startswith(magic)), "of an unknown kind")
