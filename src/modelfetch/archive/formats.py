"""What a name promises, and what the content is."""

HEAD = 512  # bytes from which `recognise` tells every format

_MAGICS = (
    (b"\x1f\x8b", "gzip"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    *((bytes([low]) + b"\x2a\x4d\x18", "zstd") for low in range(0x50, 0x60)),  # a skippable frame: RFC 8878, 3.1.2
    (b"PK\x03\x04", "zip"),
    (b"PK\x05\x06", "zip"),  # one without members
)
_OTHERS = (  # what people upload under an archive's name by mistake; for the message only
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
    """Return `tar`, `zip`, `gzip`, `bzip2`, `xz`, `zstd`, or nothing for content that is none of these.

    Args:
        head: the first 512 bytes, or all there are.
    """
    if is_tar(head):
        return "tar"
    return next((kind for magic, kind in _MAGICS if head.startswith(magic)), "")


def is_tar(head: bytes) -> bool:
    """Whether the first block is that of a tar, of an empty one, or of a damaged one that still bears its mark."""
    if len(head) < HEAD:
        return False
    if head[257:262] == b"ustar" or not any(head):
        return True
    import tarfile  # noqa: PLC0415  on demand: most pulls see no archive, and start-up is what they wait for

    try:
        tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


def describe_content(head: bytes) -> str:
    """Say what content is that is no archive, for a message."""
    if not head:
        return "empty"
    return next((what for magic, what in _OTHERS if head.startswith(magic)), "of an unknown kind")
