"""The use case: resolve, plan, transfer, verify, unpack, publish."""

import sys
import time
from collections.abc import Callable
from datetime import datetime
from typing import NamedTuple

from modelfetch import checksums
from modelfetch import plan as plans
from modelfetch.archive import Budget
from modelfetch.errors import CredentialsError, ModelfetchError
from modelfetch.net import retry
from modelfetch.plan import Plan
from modelfetch.progress import Progress
from modelfetch.provenance.manifest_check import check_manifest
from modelfetch.provenance.model_signing import SignatureVerifier
from modelfetch.provenance.signature_check import check_signature
from modelfetch.pull.fetch import StagedModel, fetch
from modelfetch.sources import Access, Listing, Source, open_source
from modelfetch.transfer.adaptive_pool import TransferLimits
from modelfetch.uri import ModelURI
from modelfetch.verify import mismatches
from modelfetch.volume import ownership, publish
from modelfetch.volume import receipt as receipts
from modelfetch.volume.destination import Destination, locate_destination, read_published
from modelfetch.volume.receipt import Receipt
from modelfetch.volume.staging import has_leftovers, lock_staging_area


class PullOptions(NamedTuple):
    """How to pull.

    Attributes:
        retries: tries of the whole pull.
        retry_wait: seconds before the second try; each later wait is twice as long.
        in_cluster: missing credentials may turn up during the first minute, as in a new pod.
        extract: unpack an archive.
        include: globs of a directory's files to take; all if none are given.
        exclude: globs of a directory's files to leave.
        sha256: the caller's pin, in lower-case hexadecimal.
        recheck: hash what is there before calling it done.
        max_bytes: most bytes to publish; None for what is free.
        max_files: most files to publish.
        max_ratio: most bytes that a byte of an archive may become.
        require_manifest: pull nothing that no manifest speaks of.
        judge: knows whose signature the model must have; None if it needs none.
        limits: memory and connections.
    """

    retries: int = 3
    retry_wait: float = 10.0
    in_cluster: bool = False
    extract: bool = True
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    sha256: str | None = None
    recheck: bool = False
    max_bytes: int | None = None
    max_files: int = 1_000_000
    max_ratio: float = 1000.0
    require_manifest: bool = False
    verifier: SignatureVerifier | None = None
    limits: TransferLimits = TransferLimits()

    def selects(self, path: str) -> bool:
        """Whether a directory's file is to be pulled."""
        return plans.is_selected(path, self.include, self.exclude)


def pull(uri: ModelURI, dest: str, access: Access, options: PullOptions, progress: Progress) -> Receipt:
    """Put the model at `uri` in place at `dest`, whole and verified, or leave what is there.

    Args:
        uri: where the model is.
        dest: a file or a directory, as `cp` reads it.
        access: credentials and connections.
        options: how to pull.
        progress: is told what happens.

    Returns:
        The receipt: of this pull, or of the one that published this version before.

    Raises:
        ModelfetchError: why there is no new model; the destination holds the old one, or none.
    """
    started = time.monotonic()
    failed = 0
    opened: list[Source] = []  # one for all tries: each would leave megabytes of its SDK's behind

    def source() -> Source:
        if not opened:
            opened.append(open_source(uri, access))
        return opened[0]

    def told(tries: int, wait: float, error: ModelfetchError) -> None:
        nonlocal failed
        failed = tries
        if isinstance(error, CredentialsError):  # they are looked for anew
            opened.clear()
        progress.warn(
            f"Try {tries} of {options.retries} failed: {error.message} Next try in {wait:g} s.", reason=error.reason
        )

    tries = retry.pull_attempts(
        options.retries,
        options.retry_wait,
        in_grace=lambda: options.in_cluster and time.monotonic() - started < retry.START_UP_GRACE,
        on_retry=told,
    )
    return tries(lambda: _try(source(), dest, options, progress, _Clock(started, lambda: failed)))


class _Clock(NamedTuple):
    """When the pull began, and how many tries of it have failed so far."""

    started: float
    failed: Callable[[], int]


def _try(source: Source, dest: str, options: PullOptions, progress: Progress, clock: _Clock) -> Receipt:
    uri = source.uri
    wanted = plan(source.resolve(), uri, options)
    place = locate_destination(dest, wanted.objects[0].path, directory=wanted.directory, archive=wanted.archive)
    if (there := find_up_to_date(place, wanted, options)) and not has_leftovers(place.staging_parents, place.name):
        progress.note(f"{uri} is there already, unchanged.", path=str(place.path), version=there.version)
        return there
    busy = f"Waiting: another pull to {place.path} is at work."
    with lock_staging_area(
        place.staging_parent, place.name, lambda: progress.note(busy), place.staging_parents
    ) as stage:
        if there := find_up_to_date(place, wanted, options):
            progress.note(f"{uri} is there already, unchanged.", path=str(place.path), version=there.version)
            return there
        wanted = check_manifest(source, wanted, options.selects, required=options.require_manifest)
        if options.verifier:
            wanted = check_signature(source, wanted, options.verifier, options.selects, stage)
        staged = wanted if place.directory else wanted.named(place.path.name)
        if not wanted.archive:
            ownership.check_conflicts(stage, place, [o.path for o in staged.objects], staged.folders)
        ownership.restage_moved_files(stage, place, staged.resume_key)
        begun = receipts.utc_now()
        progress.begin(f"Fetching {uri}", wanted.size or None)
        fetched = fetch(source, staged, stage, _budget(options), options.sha256, options.limits, progress)
        progress.end()
        receipt = _receipt(uri, wanted, fetched, place, options, begun, clock)
        if wanted.directory and options.sha256:
            checksums.check_pin(str(uri), options.sha256, [receipt.digest.removeprefix("sha256:")])
        publish.publish(stage, place, receipt)
    progress.note(
        f"Published {place.path}.", digest=receipt.digest, checks=list(receipt.checks), seconds=receipt.seconds
    )
    return receipt


def plan(found: Listing, uri: ModelURI, options: PullOptions) -> Plan:
    """What of a source these options leave to pull; see `plan.make`."""
    return plans.make_plan(
        found,
        uri,
        extract=options.extract,
        include=options.include,
        exclude=options.exclude,
        max_bytes=options.max_bytes,
        max_files=options.max_files,
    )


def find_up_to_date(place: Destination, wanted: Plan, options: PullOptions) -> Receipt | None:
    """The receipt of what is there, if it is this version of this model and intact."""
    there = read_published(place)
    if there is None or not wanted.version:
        return None
    same = (there.source, there.version, there.archive is not None) == (str(wanted.uri), wanted.version, wanted.archive)
    if not same or not _pinned(there, options.sha256) or not receipts.is_intact(there, place.base):
        return None
    if not _is_of(there, wanted, place):
        return None
    if options.require_manifest and "manifest" not in there.checks:
        return None
    if options.verifier and ("signature" not in there.checks or there.signer != options.verifier.signer):
        return None  # what another signer vouched for is pulled again, and verified
    return None if options.recheck and mismatches(there, place.base) else there


def _is_of(there: Receipt, wanted: Plan, place: Destination) -> bool:
    """Whether a receipt lists what this plan brings, and agrees with itself: anyone may have written it."""
    listed = {f.path: f.size for f in there.files}
    if not listed or len(listed) != len(there.files) or (not place.directory and len(listed) != 1):
        return False
    if there.digest != receipts.model_digest(there.files, directory=place.directory):
        return False
    if wanted.archive:
        return True
    objects = wanted.objects if place.directory else wanted.named(place.path.name).objects
    sizes = {o.path: listed.get(o.path) if o.gzip or o.size is None else o.size for o in objects}
    return listed == sizes


def _pinned(there: Receipt, pin: str | None) -> bool:
    return pin is None or pin == (there.archive.sha256 if there.archive else there.digest.removeprefix("sha256:"))


def _budget(options: PullOptions) -> Budget:
    most = options.max_bytes if options.max_bytes is not None else sys.maxsize
    return Budget(max_bytes=most, max_files=options.max_files, max_ratio=options.max_ratio)


def _receipt(
    uri: ModelURI,
    wanted: Plan,
    fetched: StagedModel,
    place: Destination,
    options: PullOptions,
    begun: datetime,
    clock: _Clock,
) -> Receipt:
    return Receipt(
        source=str(uri),
        version=wanted.version,
        digest=receipts.model_digest(fetched.files, directory=place.directory),
        files=fetched.files,
        checks=fetched.checks,
        bytes=fetched.bytes,
        resumed_bytes=fetched.resumed,
        seconds=round(time.monotonic() - clock.started, 3),
        retries=fetched.retries + clock.failed(),
        started=begun,
        finished=receipts.utc_now(),
        archive=fetched.archive,
        signer=options.verifier.signer if options.verifier else None,
    )
