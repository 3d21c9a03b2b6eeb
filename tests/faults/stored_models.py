"""Stored models of the fault campaign: a large object, a directory of fifty files, a tar.gz extracted on arrival."""

import gzip
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from urllib.parse import quote

from modelfetch.transfer.part_file import BLOCK_SIZE
from testkit.file_tree import pack_tar_gz, random_bytes
from testkit.stores import Store

Files = Mapping[str, bytes]
SHAPES = ("object", "directory", "archive")
OBJECT_BYTES = 18_000_000  # two requests, the second one short
FILE_COUNT = 50
FILE_BYTES = 100_000
MEMBER_COUNT = 18
MEMBER_BYTES = 1_000_000


@cache
def model_files(shape: str, edition: int = 0) -> Files:
    """Return the expected files; editions of a model differ in every file, but not in size."""
    seed = edition * 1000
    match shape:
        case "object":
            return {"large.bin": random_bytes(OBJECT_BYTES, seed)}
        case "archive":
            return {f"{number:02}/member": random_bytes(MEMBER_BYTES, seed + number) for number in range(MEMBER_COUNT)}
        case _:
            return {
                f"{number:02}/file": random_bytes(FILE_BYTES if number else 0, seed + number)
                for number in range(FILE_COUNT)
            }


@cache
def stored_objects(shape: str, edition: int = 0) -> Files:
    """Return the objects of a model by key."""
    files = model_files(shape, edition)
    match shape:
        case "object":
            return files
        case "archive":
            return {"model.tar.gz": pack_tar_gz(files)}
        case _:
            return {f"dir/{name}": data for name, data in files.items()}


@dataclass
class StoredModel:
    """A model in a store, with the object under attack.

    Attributes:
        shape: object, directory or archive.
        victim: key of the object whose download is disturbed.
        objects: all objects by key.
        editions: all editions, the current last: any may be at the destination, whole.
        gzip_encoded: whether the objects are stored compressed, with contentEncoding gzip.
    """

    store: Store
    shape: str
    victim: str
    objects: dict[str, bytes]
    editions: list[Files]
    gzip_encoded: bool = False

    @property
    def uri(self) -> str:
        """Return the URI of the whole model."""
        return self.store.uri("dir/" if self.shape == "directory" else self.victim)

    @property
    def size(self) -> int:
        """Return the bytes of all objects."""
        return sum(map(len, self.objects.values()))

    @property
    def victim_size(self) -> int:
        """Return the bytes of the victim."""
        return len(self.objects[self.victim])

    @property
    def block_count(self) -> int:
        """Return the most blocks in which the victim is fetched and journaled."""
        return -(-self.victim_size // BLOCK_SIZE)

    def put_object(self, key: str, data: bytes) -> None:
        """Store an object of the model, new or replaced."""
        if self.gzip_encoded:
            data = gzip.compress(data, 1, mtime=0)
            self.store.put(key, data, content_encoding="gzip")
        else:
            self.store.put(key, data)
        self.objects[key] = data

    def put_edition(self, edition: int) -> None:
        """Store another edition of the whole model."""
        for key, data in stored_objects(self.shape, edition).items():
            self.put_object(key, data)

    def delete_object(self, key: str) -> None:
        """Delete an object of the model."""
        self.store.delete(key)
        del self.objects[key]

    def restore_objects(self) -> None:
        """Store deleted objects of the model again."""
        for key in stored_objects(self.shape).keys() - self.objects.keys():
            self.put_object(key, stored_objects(self.shape)[key])
            path = key.removeprefix("dir/")
            back = {**self.editions[-1], path: model_files(self.shape)[path]} if self.shape == "directory" else None
            self.editions.append(back or model_files(self.shape))

    def match_downloads(self, key: str | None = None) -> dict[str, str]:
        """Return the proxy's filter for downloads of an object, by default the victim."""
        return self.store.download_filter(self.victim if key is None else key)

    def match_metadata_requests(self) -> dict[str, str]:
        """Return the proxy's filter for the first metadata request: the object's state or the listing."""
        if self.store.scheme == "s3" and self.shape == "directory":
            return {"method": "GET", "path": f"^/{self.store.bucket}/?$", "query": "list-type=2"}
        if self.store.scheme == "s3":
            return {"method": "HEAD", "path": f"^/{self.store.bucket}/{quote(self.victim)}$"}
        name = "" if self.shape == "directory" else f"/{quote(self.victim, safe='')}"
        return {"method": "GET", "path": f"/b/{self.store.bucket}/o{name}$", "query": "^(?!.*alt=media)"}


def store_model(store: Store, shape: str, *, gzip_encoded: bool = False) -> StoredModel:
    """Store a model of the given shape."""
    victim = {"object": "large.bin", "archive": "model.tar.gz", "directory": "dir/07/file"}[shape]
    model = StoredModel(store, shape, victim, {}, [model_files(shape)], gzip_encoded)
    model.put_edition(0)
    return model


def overwrite_victim(model: StoredModel) -> None:
    """Replace the victim by another edition of the same size: either edition is right, no mixture."""
    new = model_files(model.shape, 1)
    whole = new if model.shape != "directory" else {**model.editions[0], "07/file": new["07/file"]}
    model.put_object(model.victim, stored_objects(model.shape, 1)[model.victim])
    model.editions.append(whole)


def delete_victim(model: StoredModel) -> None:
    """Delete the victim from the store."""
    model.delete_object(model.victim)
