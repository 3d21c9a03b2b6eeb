"""Buckets on real servers, alike for S3 and GCS, with the environment that a user would set."""

import base64
import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote, urlencode
from uuid import uuid4

import anycrc
import boto3
import urllib3
from botocore.config import Config
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage

from testkit.file_tree import pack_tar, read_files, write_files

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

REGION = "us-east-1"
MODELS = {"crc32": "CRC32", "crc32c": "CRC32C", "crc64nvme": "CRC64-NVME"}


def crc_base64(algorithm: str, data: bytes) -> str:
    """Return a CRC in base64, big-endian, as both stores write checksums."""
    value = int(anycrc.Model(MODELS[algorithm]).calc(data))
    return base64.b64encode(value.to_bytes(8 if algorithm == "crc64nvme" else 4, "big")).decode()


class Store(Protocol):
    """A bucket owned by one test."""

    @property
    def scheme(self) -> str:
        """Return the scheme of its URIs: s3 or gs."""
        ...

    @property
    def bucket(self) -> str:
        """Return the name of the bucket."""
        ...

    @property
    def endpoint(self) -> str:
        """Return the URL of the server."""
        ...

    @property
    def env(self) -> dict[str, str]:
        """Return the variables that point a user at the server."""
        ...

    def env_at(self, endpoint: str) -> dict[str, str]:
        """Return the same variables for another address of the server."""
        ...

    def model_env(self, key: str) -> dict[str, str]:
        """Return the variables that name the model in a ConfigMap."""
        ...

    def put(self, key: str, data: bytes, **meta: Any) -> None:
        """Store an object with optional metadata."""
        ...

    def put_many(self, prefix: str, files: Mapping[str, bytes]) -> None:
        """Store many small objects quickly below a prefix."""
        ...

    def get(self, key: str) -> bytes:
        """Return the content of an object."""
        ...

    def list_keys(self) -> list[str]:
        """Return the keys of all objects, sorted."""
        ...

    def delete(self, key: str) -> None:
        """Remove an object from the bucket."""
        ...

    def uri(self, key: str = "") -> str:
        """Return the URI to give to `modelfetch`."""
        ...

    def version(self, key: str) -> str:
        """Return the identifier of the current version."""
        ...

    def pinned_uri(self, key: str, version: str) -> str:
        """Return the URI of one version."""
        ...

    def download_filter(self, key: str = "") -> dict[str, str]:
        """Return the criteria of downloads of an object, or of any object: for `FaultRule` and `matching_requests`."""
        ...


@dataclass(frozen=True)
class S3Server:
    """A server that speaks S3. `kind` is minio, moto or given."""

    endpoint: str
    access_key: str
    secret_key: str
    kind: str

    @cached_property
    def client(self) -> "S3Client":
        """Return a client with the server's own credentials."""
        return self._new_client()

    @cached_property
    def legacy_client(self) -> "S3Client":
        """Return a client without checksums, as clients were before 2025."""
        return self._new_client(request_checksum_calculation="when_required")

    def close(self) -> None:
        """Close the connections of both clients."""
        self.client.close()
        self.legacy_client.close()

    def _new_client(self, **config: Any) -> "S3Client":
        return boto3.session.Session().client(  # boto3's own session is not for several threads
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name=REGION,
            config=Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 3}, **config),
        )

    @property
    def env(self) -> dict[str, str]:
        """Return the variables that point a user at the server."""
        return self.env_at(self.endpoint)

    def env_at(self, endpoint: str) -> dict[str, str]:
        """Return the same variables for another address of the server."""
        return {
            "AWS_ENDPOINT_URL_S3": endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_REGION": REGION,
        }

    def temporary_keys(self) -> dict[str, str]:
        """Return keys with a session token, valid for an hour: AccessKeyId, SecretAccessKey, SessionToken."""
        client = boto3.session.Session().client(
            "sts",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name=REGION,
        )
        with contextlib.closing(client):
            response = client.assume_role(RoleArn="arn:aws:iam::000000000000:role/testkit", RoleSessionName="testkit")
        return {name: str(value) for name, value in response["Credentials"].items()}

    @contextlib.contextmanager
    def new_bucket(self, *, versioned: bool = False) -> "Iterator[S3Bucket]":
        """Create a bucket for the duration of the block."""
        bucket = S3Bucket(self, f"t-{uuid4().hex[:20]}")
        self.client.create_bucket(Bucket=bucket.bucket)
        if versioned:
            self.client.put_bucket_versioning(Bucket=bucket.bucket, VersioningConfiguration={"Status": "Enabled"})
        yield bucket
        if self.kind == "given":
            bucket.delete_bucket()


@dataclass(frozen=True)
class S3Bucket:
    """A `Store` in a bucket on S3."""

    server: S3Server
    bucket: str
    scheme: str = field(default="s3", init=False)

    @property
    def endpoint(self) -> str:
        """Return the URL of the server."""
        return self.server.endpoint

    @property
    def env(self) -> dict[str, str]:
        """Return the variables that point a user at the server."""
        return self.server.env

    def env_at(self, endpoint: str) -> dict[str, str]:
        """Return the same variables for another address of the server."""
        return self.server.env_at(endpoint)

    def model_env(self, key: str) -> dict[str, str]:
        """Return the variables that name the model in a ConfigMap."""
        return {"S3_BUCKET": self.bucket, "S3_MODEL_PATH": key}

    def put(self, key: str, data: bytes, **meta: Any) -> None:
        """Put as `Store` says; `meta` are parameters of PutObject."""
        self.server.client.put_object(Bucket=self.bucket, Key=key, Body=data, **meta)

    def put_many(self, prefix: str, files: Mapping[str, bytes]) -> None:
        """Put as `Store` says; MinIO unpacks specially marked archives."""
        if self.server.kind == "minio":
            self.put(
                "all.tar",
                pack_tar({prefix + name: data for name, data in files.items()}),
                Metadata={"snowball-auto-extract": "true"},
            )
        else:
            for name, data in files.items():
                self.put(prefix + name, data)

    def put_without_checksum(self, key: str, data: bytes) -> None:
        """Store an object without a checksum except its ETag."""
        self.server.legacy_client.put_object(Bucket=self.bucket, Key=key, Body=data)

    def put_parts(self, key: str, parts: list[bytes], *, full_object: bool = True) -> None:
        """Upload in parts: with CRC64NVME of the full object, or with a composite CRC32, as tools before 2025 did."""
        client, place = self.server.client, {"Bucket": self.bucket, "Key": key}
        name, kind = ("CRC64NVME", "FULL_OBJECT") if full_object else ("CRC32", "COMPOSITE")
        begin: Any = {**place, "ChecksumAlgorithm": name, "ChecksumType": kind}
        upload = client.create_multipart_upload(**begin)["UploadId"]
        done = []
        for number, part in enumerate(parts, start=1):
            checksum = {f"Checksum{name}": crc_base64(name.lower(), part)}
            one: Any = {**place, "UploadId": upload, "PartNumber": number, "Body": part, **checksum}
            done.append({"PartNumber": number, "ETag": client.upload_part(**one)["ETag"], **checksum})
        finish: Any = {**place, "UploadId": upload, "MultipartUpload": {"Parts": done}, "ChecksumType": kind}
        if full_object:
            finish["ChecksumCRC64NVME"] = crc_base64("crc64nvme", b"".join(parts))
        client.complete_multipart_upload(**finish)

    def get(self, key: str) -> bytes:
        """Return the content of an object."""
        return self.server.client.get_object(Bucket=self.bucket, Key=key)["Body"].read()

    def list_keys(self) -> list[str]:
        """Return the keys of all objects, sorted."""
        pages = self.server.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket)
        return sorted(item["Key"] for page in pages for item in page.get("Contents", ()))

    def delete(self, key: str) -> None:
        """Remove an object from the bucket."""
        self.server.client.delete_object(Bucket=self.bucket, Key=key)

    def uri(self, key: str = "") -> str:
        """Return the URI to give to `modelfetch`."""
        return f"s3://{self.bucket}/{key}"

    def version(self, key: str) -> str:
        """Return the version id, or the ETag in an unversioned bucket."""
        reply = self.server.client.head_object(Bucket=self.bucket, Key=key)
        return reply.get("VersionId") or reply["ETag"].strip('"')

    def pinned_uri(self, key: str, version: str) -> str:
        """Return the URI of one version."""
        return f"{self.uri(key)}?versionId={version}"

    def download_filter(self, key: str = "") -> dict[str, str]:
        """Filter as `Store` says; requests have the bucket in the path."""
        name = f"{quote(key)}$" if key else "."
        return {"method": "GET", "path": f"^/{self.bucket}/{name}"}

    def allow_anonymous_reads(self) -> None:
        """Allow reads and listings without credentials."""
        resources = [f"arn:aws:s3:::{self.bucket}", f"arn:aws:s3:::{self.bucket}/*"]
        allow = {
            "Effect": "Allow",
            "Principal": "*",
            "Action": ["s3:GetObject", "s3:ListBucket"],
            "Resource": resources,
        }
        policy = {"Version": "2012-10-17", "Statement": [allow]}
        self.server.client.put_bucket_policy(Bucket=self.bucket, Policy=json.dumps(policy))

    def delete_bucket(self) -> None:
        """Delete the bucket with all its objects and versions."""
        client = self.server.client
        for page in client.get_paginator("list_object_versions").paginate(Bucket=self.bucket):
            for item in (*page.get("Versions", ()), *page.get("DeleteMarkers", ())):
                client.delete_object(Bucket=self.bucket, Key=item["Key"], VersionId=item["VersionId"])
        client.delete_bucket(Bucket=self.bucket)


@dataclass(frozen=True)
class GCSServer:
    """An emulator of Google Cloud Storage. `kind` is fake-gcs-server or given."""

    endpoint: str
    kind: str

    @cached_property
    def client(self) -> Any:
        """Return a client without any credentials."""
        options = {"api_endpoint": self.endpoint}
        nobody: Any = AnonymousCredentials  # google-auth's constructors have no types
        return storage.Client(project="test", credentials=nobody(), client_options=options)

    @property
    def env(self) -> dict[str, str]:
        """Return the variables that point a user at the emulator."""
        return {"STORAGE_EMULATOR_HOST": self.endpoint}

    @contextlib.contextmanager
    def new_bucket(self, *, versioned: bool = False) -> "Iterator[GCSBucket]":
        """Create a bucket for the duration of the block."""
        bucket = self.client.bucket(f"t-{uuid4().hex[:20]}")
        bucket.versioning_enabled = versioned
        bucket.create()
        yield GCSBucket(self, bucket.name)
        for blob in self.client.list_blobs(bucket.name, versions=versioned):  # the emulator keeps objects in memory
            blob.delete()
        bucket.delete()


@dataclass(frozen=True)
class GCSBucket:
    """A `Store` in a bucket on GCS."""

    server: GCSServer
    bucket: str
    scheme: str = field(default="gs", init=False)

    @property
    def endpoint(self) -> str:
        """Return the URL of the server."""
        return self.server.endpoint

    @property
    def env(self) -> dict[str, str]:
        """Return the variables that point a user at the server."""
        return self.server.env

    def env_at(self, endpoint: str) -> dict[str, str]:
        """Return the same variables for another address of the server."""
        return {"STORAGE_EMULATOR_HOST": endpoint}

    def model_env(self, key: str) -> dict[str, str]:
        """Return the variables that name the model in a ConfigMap."""
        return {"GCS_BUCKET": self.bucket, "GCS_MODEL_PATH": key}

    def put(self, key: str, data: bytes, **meta: Any) -> None:
        """Put as `Store` says; `meta` are attributes of the blob."""
        blob = self._blob(key)
        for name, value in meta.items():
            setattr(blob, name, value)
        blob.upload_from_string(data, content_type="application/octet-stream")

    def put_many(self, prefix: str, files: Mapping[str, bytes]) -> None:
        """Put as `Store` says, without the SDK, ten times faster."""
        with urllib3.PoolManager() as pool:
            for name, data in files.items():
                query = urlencode({"uploadType": "media", "name": prefix + name})
                reply = pool.request("POST", f"{self.endpoint}/upload/storage/v1/b/{self.bucket}/o?{query}", body=data)
                assert reply.status == 200

    def get(self, key: str) -> bytes:
        """Return the content of an object."""
        return bytes(self._blob(key).download_as_bytes())

    def list_keys(self) -> list[str]:
        """Return the keys of all objects, sorted."""
        return sorted(blob.name for blob in self.server.client.list_blobs(self.bucket))

    def delete(self, key: str) -> None:
        """Remove an object from the bucket."""
        self._blob(key).delete()

    def uri(self, key: str = "") -> str:
        """Return the URI to give to `modelfetch`."""
        return f"gs://{self.bucket}/{key}"

    def version(self, key: str) -> str:
        """Return the generation of the object."""
        blob = self._blob(key)
        blob.reload()
        return str(blob.generation)

    def pinned_uri(self, key: str, version: str) -> str:
        """Return the URI of one version."""
        return f"{self.uri(key)}#{version}"

    def download_filter(self, key: str = "") -> dict[str, str]:
        """Return the criteria of downloads of an object, or of any object: for `FaultRule` and `matching_requests`."""
        name = f"{quote(key, safe='')}$" if key else "."
        return {"method": "GET", "path": f"/b/{self.bucket}/o/{name}", "query": "alt=media"}

    def _blob(self, key: str) -> Any:
        return self.server.client.bucket(self.bucket).blob(key)


@dataclass(frozen=True)
class ModelFolder:
    """A local directory of models, for tests that depend on no store: no SDK is loaded."""

    root: Path

    def put(self, key: str, data: bytes) -> None:
        """Write a file below the directory."""
        write_files(self.root, {key: data})

    def list_keys(self) -> list[str]:
        """List the paths of all files, sorted."""
        return sorted(read_files(self.root))

    def delete(self, key: str) -> None:
        """Remove a file and the directories left empty: a bucket has none."""
        (self.root / key).unlink()
        for folder in Path(key).parents[:-1]:
            if not any((self.root / folder).iterdir()):
                (self.root / folder).rmdir()

    def uri(self, key: str = "") -> str:
        """Return the path to give to `modelfetch`."""
        return f"{self.root}/{key}"
