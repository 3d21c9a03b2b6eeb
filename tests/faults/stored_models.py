"""The models of the fault campaign: a large object, a directory of fifty files, a tar.gz unpacked on arrival."""

import gzip
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from urllib.parse import quote

from modelfetch.transfer.part_file import BLOCK_SIZE
from testkit import tree
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
    """What must be at the destination; editions of a model differ in every file, and not in its size."""
    seed = edition * 1000
    match shape:
        case "object":
            return {"large.bin": tree.noise(OBJECT_BYTES, seed)}
        case "archive":
            return {f"{number:02}/member": tree.noise(MEMBER_BYTES, seed + number) for number in range(MEMBER_COUNT)}
        case _:
            return {
                f"{number:02}/file": tree.noise(FILE_BYTES if number else 0, seed + number)
                for number in range(FILE_COUNT)
            }


@cache
def stored_objects(shape: str, edition: int = 0) -> Files:
    """The objects that hold it, by key."""
    files = model_files(shape, edition)
    match shape:
        case "object":
            return files
        case "archive":
            return {"model.tar.gz": tree.tar_gz(files)}
        case _:
            return {f"dir/{name}": data for name, data in files.items()}


@dataclass
class StoredModel:
    """A model in a store, and which of its objects things happen to.

    Attributes:
        shape: object, directory or archive.
        victim: the key of the object whose download goes wrong.
        objects: all of them, by key.
        editions: what it is now, last, and what it was before: any of these may be at the destination, whole.
        packed: whether its objects are stored compressed, with contentEncoding gzip.
    """

    store: Store
    shape: str
    victim: str
    objects: dict[str, bytes]
    editions: list[Files]
    gzip_encoded: bool = False

    @property
    def uri(self) -> str:
        """The whole model."""
        return self.store.uri("dir/" if self.shape == "directory" else self.victim)

    @property
    def size(self) -> int:
        """Bytes of all objects."""
        return sum(map(len, self.objects.values()))

    @property
    def victim_size(self) -> int:
        """Bytes of the one that things happen to."""
        return len(self.objects[self.victim])

    @property
    def block_count(self) -> int:
        """In how many pieces the victim is fetched and noted, at most."""
        return -(-self.victim_size // BLOCK_SIZE)

    def put_object(self, key: str, data: bytes) -> None:
        """Store an object of it, anew or for the first time."""
        if self.gzip_encoded:
            data = gzip.compress(data, 1, mtime=0)
            self.store.put(key, data, content_encoding="gzip")
        else:
            self.store.put(key, data)
        self.objects[key] = data

    def put_edition(self, edition: int) -> None:
        """Store another edition of the whole."""
        for key, data in stored_objects(self.shape, edition).items():
            self.put_object(key, data)

    def delete_object(self, key: str) -> None:
        """Remove an object of it."""
        self.store.delete(key)
        del self.objects[key]

    def restore_objects(self) -> None:
        """Put back what was deleted."""
        for key in stored_objects(self.shape).keys() - self.objects.keys():
            self.put_object(key, stored_objects(self.shape)[key])
            path = key.removeprefix("dir/")
            back = {**self.editions[-1], path: model_files(self.shape)[path]} if self.shape == "directory" else None
            self.editions.append(back or model_files(self.shape))

    def match_downloads(self, key: str | None = None) -> dict[str, str]:
        """What tells requests for the bytes of an object, the victim if none is named, from others."""
        return self.store.downloads(self.victim if key is None else key)

    def match_metadata_requests(self) -> dict[str, str]:
        """What tells the first question, that for the object's state or for the listing, from others."""
        if self.store.scheme == "s3" and self.shape == "directory":
            return {"method": "GET", "path": f"^/{self.store.bucket}/?$", "query": "list-type=2"}
        if self.store.scheme == "s3":
            return {"method": "HEAD", "path": f"^/{self.store.bucket}/{quote(self.victim)}$"}
        name = "" if self.shape == "directory" else f"/{quote(self.victim, safe='')}"
        return {"method": "GET", "path": f"/b/{self.store.bucket}/o{name}$", "query": "^(?!.*alt=media)"}


def store_model(store: Store, shape: str, *, gzip_encoded: bool = False) -> StoredModel:
    """Store a model of a shape."""
    victim = {"object": "large.bin", "archive": "model.tar.gz", "directory": "dir/07/file"}[shape]
    model = StoredModel(store, shape, victim, {}, [model_files(shape)], gzip_encoded)
    model.put_edition(0)
    return model


def overwrite_victim(model: StoredModel) -> None:
    """Replace the victim by another edition's, of the same size: either edition is right, and no mixture."""
    new = model_files(model.shape, 1)
    whole = new if model.shape != "directory" else {**model.editions[0], "07/file": new["07/file"]}
    model.put_object(model.victim, stored_objects(model.shape, 1)[model.victim])
    model.editions.append(whole)


def delete_victim(model: StoredModel) -> None:
    """Remove the victim."""
    model.delete_object(model.victim)
