"""What the signature says of what is to be pulled: found, verified and compared before the first byte of the model."""

from collections.abc import Callable, Mapping, Sequence

from modelfetch import safe_paths
from modelfetch.errors import SignatureError
from modelfetch.plan import Plan
from modelfetch.provenance.model_signing import ITSELF, MAX_BYTES, SUFFIX, SignatureVerifier
from modelfetch.sources import RemoteObject, Source
from modelfetch.transfer.read_object import read_object
from modelfetch.volume.filesystem import disk_errors
from modelfetch.volume.staging import StagingArea

_SHOWN = 20  # differences in a message


def check_signature(
    source: Source, wanted: Plan, judge: SignatureVerifier, chosen: Callable[[str], bool], stage: StagingArea
) -> Plan:
    """Verify the model's signature, compare the names, and note what sha256 was signed.

    A directory's signature is the `model.sig` in it, whether the patterns leave that or not; a single object's, also
    an archive's, stands beside it as `<key>.sig`.

    Args:
        source: where the model is.
        wanted: what is to be pulled.
        judge: knows whose signature it must be.
        chosen: whether a directory's path is to be pulled, if it is there.
        stage: has room for a file.

    Raises:
        SignatureError: there is none, it is not theirs, or it is of other files.
        TransientError: what the judge needs cannot be fetched now.
        ModelfetchError: the signature cannot be fetched.
    """
    what = str(wanted.uri)
    found = _signature(source, wanted)
    data = read_object(source, found, MAX_BYTES)
    bundle = stage.work_directory / "signature"
    try:
        with disk_errors(bundle):
            bundle.write_bytes(data)
        files = judge.verified_files(bundle, what)
    finally:
        with disk_errors(bundle):
            bundle.unlink(missing_ok=True)
    if not wanted.directory:
        if {*files} != {ITSELF}:
            raise SignatureError(
                f"The signature {found.key} is of a directory, not of one file.", hint="Sign the file itself."
            )
        (single,) = wanted.objects
        return wanted._replace(signed_sha256={single.key: files[ITSELF]})
    files.pop(safe_paths.SIGNATURE_NAME, None)
    there = {o.path: o.key for o in wanted.objects if o.path != safe_paths.SIGNATURE_NAME}
    check_signed_files(what, files, dict.fromkeys(there, ()), chosen)
    return wanted._replace(signed_sha256={key: files[path] for path, key in there.items()})


def _signature(source: Source, wanted: Plan) -> RemoteObject:
    if wanted.directory:
        found, where = wanted.signature, f"{str(wanted.uri).rstrip('/')}/{safe_paths.SIGNATURE_NAME}"
    else:
        (single,) = wanted.objects
        found, where = source.sidecar(single.remote, SUFFIX), single.key + SUFFIX
    if found is None:
        raise SignatureError(
            f"{wanted.uri} is not signed: there is no {where}.",
            hint="Sign it with `modelfetch push --sign`, or do without --verify-signature.",
        )
    return found


def check_signed_files(
    what: str, signed: Mapping[str, str], here: Mapping[str, Sequence[str]], chosen: Callable[[str], bool]
) -> None:
    """Refuse what is not exactly what was signed.

    Args:
        what: the model, for the message.
        signed: the sha256 by path.
        here: the same of what is there, in any of the forms in which it may be meant; none if it is not known yet.
        chosen: whether a file must be there; others may be.

    Raises:
        SignatureError: naming every file that is not signed, missing or altered.
    """
    wrong = [f"{safe_paths.quote_path(path)} is not signed" for path in sorted({*here} - {*signed})]
    wrong += [f"{safe_paths.quote_path(path)} is missing" for path in sorted({*signed} - {*here}) if chosen(path)]
    for path in sorted({*here} & {*signed}):
        if here[path] and signed[path] not in here[path]:
            wrong.append(
                f"{safe_paths.quote_path(path)}: signed was sha256 {signed[path]}, got {' or '.join(here[path])}"
            )
    if wrong:
        more = f" and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        raise SignatureError(
            f"{what} is not what was signed: {'; '.join(wrong[:_SHOWN])}{more}.",
            hint="It was changed after it was signed: sign it again, or leave out with --exclude what is not signed.",
        )
