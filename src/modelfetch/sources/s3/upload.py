"""Uploads to S3 by boto3's transfer manager; imported by a push only, for a pull needs no boto3."""

import base64
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from boto3.s3.transfer import ProgressCallbackInvoker, TransferConfig, create_transfer_manager

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_MULTIPART_THRESHOLD = 64 * 1024**2  # bytes
_PART_BYTES = 16 * 1024**2  # four parts at once, each read from the disk while being sent


def upload_file(
    client: "S3Client", path: Path, bucket: str, key: str, crc: str, on_sent: Callable[[int], None]
) -> None:
    """Upload a file, in parts if large; S3 refuses the object if the CRC of the received bytes differs.

    AWS_REQUEST_CHECKSUM_CALCULATION=when_required omits the CRC, for servers that refuse checksums.

    Args:
        client: client with retries of its own: only the SDK can retry a single part.
        path: local file.
        bucket: destination bucket.
        key: object key.
        crc: CRC32 of the file, in hexadecimal.
        on_sent: called with the number of bytes sent; negative when bytes have to be sent again.

    Raises:
        ClientError: the store refuses the upload; other exceptions of the SDK pass through as well.
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
            subscribers=[ProgressCallbackInvoker(on_sent)],
        ).result()
