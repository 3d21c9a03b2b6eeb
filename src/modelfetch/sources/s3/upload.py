"""Uploads to S3 by boto3's transfer manager. Only a push imports this: a pull does without boto3."""

import base64
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from boto3.s3.transfer import ProgressCallbackInvoker, TransferConfig, create_transfer_manager

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_MULTIPART_THRESHOLD, _PART_BYTES = (
    64 * 1024**2,
    16 * 1024**2,
)  # bytes; four parts at once, read from the disk as they are sent


def upload_file(
    client: "S3Client", path: Path, bucket: str, key: str, crc: str, advance: Callable[[int], None]
) -> None:
    """Send a file, in parts if it is large; S3 stores nothing if its own CRC of the whole object is another.

    AWS_REQUEST_CHECKSUM_CALCULATION=when_required sends none, for servers that refuse them.

    Args:
        client: tries each part again by itself, for only the SDK can.
        path: the file.
        bucket: whereto.
        key: the object's.
        crc: the file's CRC32, in hexadecimal.
        advance: told of bytes as they are sent; of a negative number when some have to be sent again.

    Raises:
        ClientError: as the SDK raises it; whatever else it raises as well.
        OSError: the file cannot be read.
    """
    checksum = {"ChecksumCRC32": base64.b64encode(bytes.fromhex(crc)).decode()}
    # botocore-stubs lack the setting
    omit_checksum = client.meta.config.request_checksum_calculation == "when_required"  # type: ignore[attr-defined]
    config = TransferConfig(
        multipart_threshold=_MULTIPART_THRESHOLD,
        multipart_chunksize=_PART_BYTES,
        max_concurrency=4,
        use_threads=path.stat().st_size >= _MULTIPART_THRESHOLD,
        preferred_transfer_client="classic",
    )
    with create_transfer_manager(client, config) as manager:
        manager.upload(
            os.fspath(path),
            bucket,
            key,
            extra_args={} if omit_checksum else checksum,
            subscribers=[ProgressCallbackInvoker(advance)],
        ).result()
