"""The use case `push`: check the target, find the files, pack on request, upload, compare, leave a manifest."""

import contextlib
import hashlib
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

from modelfetch import checksums, safe_paths
from modelfetch.checksums import Fingerprint
from modelfetch.errors import (
    BudgetError,
    ChangedError,
    CredentialsError,
    DestinationError,
    MismatchError,
    NotFoundError,
    RefusedError,
    UsageError,
)
from modelfetch.plan import PlanLimits, make_plan
from modelfetch.progress import Progress
from modelfetch.provenance import manifest as manifests
from modelfetch.provenance import model_signing
from modelfetch.provenance.manifest import Manifest
from modelfetch.provenance.model_signing import ModelSigner
from modelfetch.push import local_model
from modelfetch.push.local_model import LocalModel
from modelfetch.push.pack import is_packable_name, pack_directory
from modelfetch.sources import RemoteObject, SourceOptions, WritableSource, find_spec, open_source
from modelfetch.transfer.adaptive_pool import WorkerLimits, run_tasks
from modelfetch.uri import ModelURI
from modelfetch.volume import receipt as receipts
from modelfetch.volume.filesystem import disk_errors
from modelfetch.volume.receipt import FileEntry

_CONCURRENT_FILES = 4  # on S3, each large file uses four connections of its own


class PushedModel(NamedTuple):
    """Result of a push: the stored model.

    Attributes:
        uri: address to pull; pinned to the version for a single object in a store with versions.
        sha256: pin for the pull: the file's sha256, or the digest in the receipt of a directory's pull.
        version: version in the receipt of a pull.
        bytes: total size of the files in bytes.
        files: number of files.
    """

    uri: str
    sha256: str
    version: str
    bytes: int
    files: int

    def as_dict(self) -> dict[str, object]:
        """Return the fields for JSON output."""
        return self._asdict()


def push(
    path: Path, uri: ModelURI, options: SourceOptions, progress: Progress, signer: ModelSigner | None = None
) -> PushedModel:
    """Upload the file or directory at `path` to `uri`, compare checksums with the store, and leave a manifest.

    An incomplete manifest keeps pulls from taking a directory before the upload ends. The signature covers the uploaded
    files; a directory's earlier signature is replaced.

    Args:
        path: file or directory; links are followed, and files with reserved names are not uploaded.
        uri: an object, or a prefix; a file keeps its name under a prefix with a trailing slash.
        options: options of the store, with credentials to write, read and list.
        progress: receiver of notes, warnings and the bytes sent.
        signer: signer of the uploaded files; None for a push without a signature.

    Raises:
        UsageError: the target is not in a bucket, names a version, has a reserved name, or leaves no name for the
            manifest.
        NotFoundError: nothing exists at `path`, or the bucket does not exist.
        WrongBytesError: the file is empty, a name cannot be pulled again, or the files are too many.
        MismatchError: checksums, sizes or names in the store differ from the local files.
        DestinationError: other objects stand under the prefix and would become part of the model.
        ChangedError: a file changed during the push.
        ModelfetchError: the upload failed.
    """
    _check_target(uri)
    local = local_model.find_local_model(path)
    if local.reserved:
        progress.log_info(safe_paths.describe_reserved(local.reserved, str(path)))
    with _prepare_model(local, uri, progress) as model:
        target = _resolve_target(uri, model)
        store = open_source(target, options)
        assert isinstance(store, WritableSource)
        push_model = _push_directory if model.directory else _push_file
        pushed = push_model(model, store, progress, signer)
    progress.log_info(f"Pushed {pushed.uri}.", sha256=pushed.sha256)
    return pushed


def _check_target(uri: ModelURI) -> None:
    """Refuse a target outside a bucket, or with a version."""
    hint = "A model can be pushed to s3://bucket/path or gs://bucket/path."
    if not find_spec(uri).writable:
        raise UsageError(f"{uri} is no place in a bucket.", hint=hint)
    if uri.version:
        raise UsageError(f"The store gives what is pushed its version; {uri.version} cannot be asked for.", hint=hint)


@contextlib.contextmanager
def _prepare_model(model: LocalModel, uri: ModelURI, progress: Progress) -> Iterator[LocalModel]:
    """Yield the model to upload: a temporary archive of a directory if the target is named like an archive."""
    if not model.directory or uri.is_directory or not is_packable_name(uri.name):
        yield model
        return
    with contextlib.ExitStack() as stack:
        with disk_errors("the temporary directory"):
            archive = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="modelfetch-")), uri.name)
        progress.log_info(f"Packing the directory into {uri.name}.", files=len(model.files), bytes=model.size)
        pack_directory(model, archive)
        yield local_model.find_local_model(archive)


def _resolve_target(uri: ModelURI, model: LocalModel) -> ModelURI:
    """Return the address of the object, or of the prefix with a trailing slash."""
    if model.directory:
        return uri if uri.is_directory else uri._replace(key=f"{uri.key}/")
    return uri._replace(key=uri.key + model.files[0].path) if uri.is_directory else uri


def _push_file(model: LocalModel, store: WritableSource, progress: Progress, signer: ModelSigner | None) -> PushedModel:
    target = store.uri
    _check_target_name(store)
    with local_model.explain_read_errors(Path(model.files[0].key)):
        Path(model.files[0].key).open("rb").close()  # the local file's errors come before the store's
    earlier = _find_manifest_pins(store)
    (sent,) = _upload_files(model, store, lambda _: target.key, progress)
    stored = sent.stored
    if signer:
        store.put(
            target.key + model_signing.SIGNATURE_SUFFIX,
            signer.sign_files(target.name, {model_signing.SINGLE_FILE: sent.sha256}),
        )
    manifest = Manifest((FileEntry(target.name, model.size, sent.sha256),), version=stored.version)
    data = manifest.to_json(directory=False).encode()
    _put_manifest(store, data, earlier)
    _require_own_versions([stored], [now for now in [store.sidecar(stored, "")] if now], store)
    if store.sidecar(stored, safe_paths.OLD_MANIFEST_SUFFIX):
        _retire_old_manifest(store, data)
    return PushedModel(stored.pinned_uri or str(target), sent.sha256, stored.version, model.size, 1)


def _put_manifest(store: WritableSource, data: bytes, expected: Mapping[str, str] | None) -> Mapping[str, str]:
    """Store the manifest in place of the expected one; return its pins.

    Raises:
        ChangedError: another push has stored a manifest meanwhile.
    """
    try:
        return store.put_if(store.uri.key + safe_paths.MANIFEST_SUFFIX, data, expected)
    except ChangedError as error:
        raise _lost_push_error(store) from error


def _find_manifest_pins(store: WritableSource) -> Mapping[str, str] | None:
    """Return the pins of the object's present manifest, empty without one; None if the credentials may not look."""
    target = store.uri
    try:
        found = store.sidecar(RemoteObject(target.key, target.name, None, ""), safe_paths.MANIFEST_SUFFIX)
    except (CredentialsError, RefusedError):
        return None
    return found.pins if found else {}


def _require_own_versions(
    uploaded: Iterable[RemoteObject], stored: Iterable[RemoteObject], store: WritableSource
) -> None:
    """Refuse to end a push whose objects another push has replaced.

    Raises:
        ChangedError: a stored object is not the uploaded one.
    """
    own = {obj.key: obj.pins for obj in uploaded}
    for obj in stored:
        pins = own.get(obj.key, {})
        if any(name in pins and pins[name].strip('"') != value.strip('"') for name, value in obj.pins.items()):
            raise _lost_push_error(store)


def _lost_push_error(store: WritableSource) -> ChangedError:
    return ChangedError(
        f"Another push to {store.uri} was at work at the same time: the model there may be of both.",
        hint="Push again, one at a time.",
    )


def _retire_old_manifest(store: WritableSource, data: bytes) -> None:
    """Delete the manifest of the old name; without the right to delete, give it the content of the new."""
    key = store.uri.key + safe_paths.OLD_MANIFEST_SUFFIX
    try:
        store.delete(key)
    except (CredentialsError, RefusedError):
        store.put(key, data)


def _check_target_name(store: WritableSource) -> None:
    """Refuse an object name without room for the manifest's suffix, or a reserved name."""
    target = store.uri
    shown = safe_paths.quote_path(target.name)
    if safe_paths.is_reserved_path(target.name):
        raise UsageError(f"The name {shown} is reserved for receipts and manifests.", hint="Push to another name.")
    name, key = (len((text + safe_paths.MANIFEST_SUFFIX).encode()) for text in (target.name, target.key))
    if name > safe_paths.MAX_SEGMENT_BYTES or key > (store.max_key_bytes or key):
        raise UsageError(f"The name {shown} is too long for that of its manifest.", hint="Push to a shorter name.")


def _push_directory(
    model: LocalModel, store: WritableSource, progress: Progress, signer: ModelSigner | None
) -> PushedModel:
    target = store.uri
    has_old_manifest = _check_prefix(model, store, {safe_paths.SIGNATURE_NAME} if signer else set())
    if signer:
        model = model.without_file(safe_paths.SIGNATURE_NAME)
    _check_manifest_size(model)
    under_way = _put_manifest(store, manifests.UNDER_WAY.to_json(directory=True).encode(), None)
    sent = _upload_files(model, store, lambda o: target.key + o.path, progress)
    for folder in model.folders:
        store.put(f"{target.key}{folder}/", b"")
    files = [FileEntry(o.path, o.size or 0, upload.sha256) for o, upload in zip(model.files, sent, strict=True)]
    if signer:
        files.append(_sign_directory(files, store, signer))
    digest = receipts.model_digest(files, directory=True).removeprefix("sha256:")
    version = _stored_version(model, files, store, [upload.stored for upload in sent])
    data = Manifest(tuple(files)).to_json(directory=True).encode()
    _put_manifest(store, data, under_way)
    if has_old_manifest:
        _retire_old_manifest(store, data)
    return PushedModel(str(target), digest, version, sum(f.size for f in files), len(files))


def _sign_directory(files: Iterable[FileEntry], store: WritableSource, signer: ModelSigner) -> FileEntry:
    """Sign the uploaded files of a directory, and store the signature with the files."""
    name = store.uri.key.rstrip("/").rpartition("/")[2]
    data = signer.sign_files(name or store.uri.bucket, {f.path: f.sha256 for f in files})
    store.put(store.uri.key + safe_paths.SIGNATURE_NAME, data)
    return FileEntry(safe_paths.SIGNATURE_NAME, len(data), hashlib.sha256(data).hexdigest())


def _check_manifest_size(model: LocalModel) -> None:
    """Refuse more files than a manifest can hold, before the first upload."""
    draft = Manifest(tuple(FileEntry(o.path, o.size or 0, "0" * 64) for o in model.files))
    if len(draft.to_json(directory=True).encode()) > manifests.MAX_MANIFEST_BYTES:
        raise BudgetError(
            f"The manifest of {len(model.files)} files would have more than {manifests.MAX_MANIFEST_BYTES} bytes.",
            hint="Push the directory as an archive: name the target .tar.zst.",
        )


def _check_prefix(model: LocalModel, store: WritableSource, allowed: set[str]) -> bool:
    """Refuse a prefix with foreign objects, which a pull would take for part of the model.

    Returns:
        Whether the prefix has a manifest of the old name.
    """
    try:
        existing = store.resolve()
    except NotFoundError:
        return False
    files = {o.path for o in model.files} | allowed
    foreign = [o.path for o in existing.objects if o.path not in files] + sorted({*existing.folders} - model.paths)
    # Reserved names are never pulled. A manifest of a part counts as foreign: after this push it would be wrong.
    foreign = [
        path
        for path in foreign
        if not safe_paths.is_reserved_path(path)
        or (safe_paths.is_manifest_path(path) and safe_paths.strip_manifest_suffix(path))
    ]
    if foreign:
        raise DestinationError(
            f"{store.uri} holds {len(foreign)} other object{'s'[: len(foreign) != 1]} that would become part of the"
            f" model ({safe_paths.quote_path(foreign[0])}{' …' if len(foreign) > 1 else ''}).",
            hint="Push to a prefix of its own, such as one that ends with a version, or delete them first.",
        )
    return any(o.path == safe_paths.OLD_MANIFEST_SUFFIX for o in existing.objects)


def _stored_version(
    model: LocalModel, files: Iterable[FileEntry], store: WritableSource, uploaded: Iterable[RemoteObject]
) -> str:
    """Return the version that a pull of the prefix would report, and refuse a listing unlike the pushed files."""
    listing = store.resolve()
    _require_own_versions(uploaded, listing.objects, store)
    plan = make_plan(listing, store.uri, PlanLimits(extract=False, max_files=len(listing.objects)))
    listed, pushed = {o.path: o.size for o in plan.objects}, {f.path: f.size for f in files}
    differing = {path for path in {*listed, *pushed} if listed.get(path) != pushed.get(path)}
    differing |= {*plan.folders} - model.paths
    if differing:
        raise MismatchError(
            f"{store.uri} does not list what was pushed ({safe_paths.quote_path(min(differing))} differs).",
            hint="Somebody else may write there, or the store keeps no empty directories; push to another prefix.",
        )
    return plan.version


class UploadedFile(NamedTuple):
    """Uploaded file; `compared` is false if the store states no checksum."""

    sha256: str
    stored: RemoteObject
    compared: bool


def _upload_files(
    model: LocalModel, store: WritableSource, key_of: Callable[[RemoteObject], str], progress: Progress
) -> list[UploadedFile]:
    """Upload each file to its key, a few at once; stop at the first failure."""
    progress.start_phase(f"Pushing to {store.uri}", model.size)
    uploaded: dict[int, UploadedFile] = {}

    def upload_file(number: int, obj: RemoteObject) -> None:
        uploaded[number] = _upload_file(model, obj, store, key_of(obj), progress)

    tasks = (partial(upload_file, number, obj) for number, obj in enumerate(model.files))
    run_tasks(tasks, WorkerLimits(_CONCURRENT_FILES, _CONCURRENT_FILES), lambda: 0, lambda: None)
    progress.end_phase()
    if unchecked := sum(not file.compared for file in uploaded.values()):
        progress.log_warning(
            f"The store states no checksum of {unchecked} of {len(uploaded)} files: only sizes were compared."
        )
    return [uploaded[number] for number in range(len(uploaded))]


def _upload_file(
    model: LocalModel, obj: RemoteObject, store: WritableSource, key: str, progress: Progress
) -> UploadedFile:
    """Upload a file with a CRC for the store to check, then compare the checksums stated by the store."""
    path = Path(obj.key)
    with model.refuse_changes(obj):
        local = local_model.fingerprint_file(path, {store.crc: ""})
        with local_model.explain_read_errors(path):
            stored = store.upload(path, key, local.checksums[store.crc], progress.add_bytes)
        if not set(stored.checksums) & set(local.checksums):
            local = local_model.fingerprint_file(path, stored.checksums)
    stated = Fingerprint(stored.size or 0, stored.checksums)
    address = f"{store.uri.scheme}://{store.uri.bucket}/{key}"
    checks = checksums.compare_checksums(address, stated, size=local.size, expected=local.checksums)
    return UploadedFile(local.sha256, stored, compared=len(checks) > 1)
