"""Check of a plan and its files against the model's signature, before the first byte of the model is fetched."""

from collections.abc import Callable, Mapping, Sequence

from modelfetch import safe_paths
from modelfetch.errors import SignatureError
from modelfetch.plan import Plan, PlanLimits
from modelfetch.provenance.manifest_check import refuse_reserved_names
from modelfetch.provenance.model_signing import MAX_SIGNATURE_BYTES, SIGNATURE_SUFFIX, SINGLE_FILE, SignatureVerifier
from modelfetch.sources import RemoteObject, Source
from modelfetch.transfer.read_object import read_object
from modelfetch.volume.filesystem import disk_errors
from modelfetch.volume.staging import StagingArea

_MAX_SHOWN = 20  # differences in a message


def check_signature(
    source: Source, plan: Plan, verifier: SignatureVerifier, limits: PlanLimits, staging: StagingArea
) -> Plan:
    """Verify the model's signature, compare the names, and add the signed sha256 to the plan.

    A directory's signature is the file `model.sig`, selected by the globs or not; a single object's signature, also an
    archive's, is the sidecar object `<key>.sig`.

    Args:
        source: store of the model.
        plan: objects to fetch.
        verifier: verifier with the trust policy.
        limits: selection of a directory's files.
        staging: staging area, for a temporary copy of the signature.

    Returns:
        The plan with `signed_sha256`.

    Raises:
        UnsafeNameError: the signature lists a reserved name.
        SignatureError: the signature is missing, not the trusted signer's, or of other files.
        TransientError: the verifier's trust root cannot be fetched now.
        ModelfetchError: the signature cannot be fetched.
    """
    address = str(plan.uri)
    signature = _find_signature(source, plan)
    data = read_object(source, signature, MAX_SIGNATURE_BYTES)
    bundle = staging.work_directory / "signature"
    try:
        with disk_errors(bundle), bundle.open("xb") as file:  # a symlink of another writer is not followed
            file.write(data)
        files = verifier.verify_bundle(bundle, address)
    finally:
        with disk_errors(bundle):
            bundle.unlink(missing_ok=True)
    if not plan.directory:
        if {*files} != {SINGLE_FILE}:
            raise SignatureError(
                f"The signature {signature.key} is of a directory, not of one file.", hint="Sign the file itself."
            )
        (single,) = plan.objects
        return plan._replace(signed_sha256={single.key: files[SINGLE_FILE]})
    files.pop(safe_paths.SIGNATURE_NAME, None)
    planned = {o.path: o.key for o in plan.objects if o.path != safe_paths.SIGNATURE_NAME}
    refuse_reserved_names(files, f"The signature {signature.key}", limits)
    check_signed_files(address, files, dict.fromkeys(planned, ()), limits.selects)
    return plan._replace(signed_sha256={key: files[path] for path, key in planned.items()})


def _find_signature(source: Source, plan: Plan) -> RemoteObject:
    if plan.directory:
        found, address = plan.signature, f"{str(plan.uri).rstrip('/')}/{safe_paths.SIGNATURE_NAME}"
    else:
        (single,) = plan.objects
        found, address = source.sidecar(single.remote, SIGNATURE_SUFFIX), single.key + SIGNATURE_SUFFIX
    if found is None:
        raise SignatureError(
            f"{plan.uri} is not signed: there is no {address}.",
            hint="Sign it with `modelfetch push --sign`, or do without --verify-signature.",
        )
    return found


def check_signed_files(
    address: str, signed: Mapping[str, str], present: Mapping[str, Sequence[str]], selects: Callable[[str], bool]
) -> None:
    """Refuse files that differ from the signed list.

    Args:
        address: address of the model, for messages.
        signed: signed sha256 by path.
        present: acceptable sha256 values of each existing file, by path; empty if not known yet.
        selects: whether a signed file must exist; files not selected may exist.

    Raises:
        SignatureError: a file is not signed, missing or altered; the message names the first twenty.
    """
    differences = [f"{safe_paths.quote_path(path)} is not signed" for path in sorted({*present} - {*signed})]
    differences += [
        f"{safe_paths.quote_path(path)} is missing" for path in sorted({*signed} - {*present}) if selects(path)
    ]
    for path in sorted({*present} & {*signed}):
        if present[path] and signed[path] not in present[path]:
            differences.append(
                f"{safe_paths.quote_path(path)}: signed was sha256 {signed[path]}, got {' or '.join(present[path])}"
            )
    if differences:
        more = f" and {len(differences) - _MAX_SHOWN} more" if len(differences) > _MAX_SHOWN else ""
        raise SignatureError(
            f"{address} is not what was signed: {'; '.join(differences[:_MAX_SHOWN])}{more}.",
            hint="It was changed after it was signed: sign it again, or leave out with --exclude what is not signed.",
        )
