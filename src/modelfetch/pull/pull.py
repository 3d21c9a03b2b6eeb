"""The use case: resolve, plan, check provenance, transfer, verify, extract, publish."""

import sys
import time
from collections.abc import Callable
from datetime import datetime
from typing import NamedTuple

from modelfetch.archive import Budget
from modelfetch.checksums import check_pin
from modelfetch.errors import ChangedError, CredentialsError, ModelfetchError, WrongBytesError
from modelfetch.net import retry
from modelfetch.plan import Plan, make_plan
from modelfetch.progress import Progress
from modelfetch.provenance.manifest_check import check_manifest
from modelfetch.provenance.signature_check import check_signature
from modelfetch.pull.content_check import check_content
from modelfetch.pull.fetch import StagedModel, fetch_model
from modelfetch.pull.options import PullOptions
from modelfetch.pull.up_to_date import find_up_to_date
from modelfetch.safe_paths import describe_reserved
from modelfetch.sources import Source, SourceOptions, open_source
from modelfetch.uri import ModelURI
from modelfetch.volume import receipt as receipts
from modelfetch.volume.destination import Destination, expand_path, locate_destination, read_published
from modelfetch.volume.ownership import check_conflicts, restage_moved_files
from modelfetch.volume.publish import publish, restore_swapped_directory
from modelfetch.volume.receipt import Receipt
from modelfetch.volume.staging import StagingArea, has_leftovers, lock_staging_area


class PullClock(NamedTuple):
    """Start of a pull (monotonic seconds) and the tries that failed so far."""

    started: float
    failed_tries: Callable[[], int] = lambda: 0


def pull(uri: ModelURI, dest: str, access: SourceOptions, options: PullOptions, progress: Progress) -> Receipt:
    """Publish the model at `uri` at `dest`, whole and verified, or leave `dest` unchanged.

    Args:
        uri: address of the model.
        dest: file or directory, as `cp` reads it.
        access: options of the source: credentials, network.
        options: options of the pull.
        progress: receives events.

    Returns:
        The receipt of this pull, or of the earlier pull that published the same version.

    Raises:
        ModelfetchError: reason why no new model was published; the destination holds the old model, or none.
    """
    started = time.monotonic()
    failed_tries = 0
    opened: list[Source] = []  # one source for all tries: each would leave megabytes of its SDK's behind

    def reuse_source() -> Source:
        if not opened:
            opened.append(open_source(uri, access))
        return opened[0]

    def on_retry(tries: int, wait: float, error: ModelfetchError) -> None:
        nonlocal failed_tries
        failed_tries = tries
        if isinstance(error, CredentialsError):  # look for credentials anew
            opened.clear()
        progress.log_warning(
            f"Try {tries} of {options.retries} failed: {error.message} Next try in {wait:g} s.", reason=error.reason
        )

    def try_once() -> Receipt:
        source = reuse_source()
        return pull_plan(source, resolve(source, options), dest, options, progress, clock)

    restore_swapped_directory(expand_path(dest))  # before anything can fail
    clock = PullClock(started, lambda: failed_tries)
    attempts = retry.pull_attempts(
        options.retries,
        options.retry_wait,
        in_grace=lambda: options.in_cluster and time.monotonic() - started < retry.START_UP_GRACE,
        on_retry=on_retry,
    )
    return attempts(try_once)


def resolve(source: Source, options: PullOptions) -> Plan:
    """Plan the newest version at a source's address; downloads nothing.

    Raises:
        ModelfetchError: nothing is stored there, or the plan exceeds the options.
    """
    return make_plan(source.resolve(), source.uri, options.plan_limits)


def pull_plan(
    source: Source, plan: Plan, dest: str, options: PullOptions, progress: Progress, clock: PullClock | None = None
) -> Receipt:
    """Publish a plan's objects at `dest`, in one try.

    Args:
        source: store of the plan's objects.
        plan: objects to publish, from `resolve`.
        dest: file or directory, as `cp` reads it.
        options: options of the pull.
        progress: receives events.
        clock: start and failed tries of the whole pull; by default the pull starts now.

    Returns:
        The receipt of this pull, or of the earlier pull that published the same version.

    Raises:
        ModelfetchError: reason why no new model was published; the destination holds the old model, or none.
    """
    clock = clock or PullClock(time.monotonic())
    place = _locate(dest, plan, options)
    place.require_exchangeable()
    published = read_published(place)
    if (receipt := find_up_to_date(place, plan, options)) and not has_leftovers(place.staging_parents, place.name):
        return _note_up_to_date(receipt, plan, place, progress)
    waited = False

    def note_wait() -> None:
        nonlocal waited
        waited = True
        progress.log_info(f"Waiting: another pull to {place.path} is at work.")

    with lock_staging_area(place.staging_parent, place.name, note_wait, place.staging_parents) as staging:
        if waited:  # the other pull may have published a newer version than this plan's
            published = read_published(place)
            plan = _plan_anew(source, dest, place, options)
        if receipt := find_up_to_date(place, plan, options):
            return _note_up_to_date(receipt, plan, place, progress)
        plan = check_manifest(source, plan, options.plan_limits, required=options.require_manifest)
        if options.verifier:
            plan = check_signature(source, plan, options.verifier, options.plan_limits, staging)
        if plan.reserved:
            progress.log_info(describe_reserved(plan.reserved, str(plan.uri)))
        started = receipts.utc_now()
        staged = _stage(source, plan, place, staging, options, progress)
        try:
            check_content(_name_as_published(plan, place), staged.files, staging, options.sha256)
        except WrongBytesError:
            staging.discard()
            raise
        receipt = _make_receipt(plan, staged, place, options, started, clock)
        if plan.directory and options.sha256:
            check_pin(str(plan.uri), options.sha256, [receipt.digest.removeprefix("sha256:")])
        _require_same_receipt(place, published)
        publish(staging, place, receipt)
    progress.log_info(
        f"Published {place.path}.", digest=receipt.digest, checks=list(receipt.checks), seconds=receipt.seconds
    )
    return receipt


def _locate(dest: str, plan: Plan, options: PullOptions) -> Destination:
    place = locate_destination(dest, plan.objects[0].path, directory=plan.directory, archive=plan.archive)
    return place._replace(publishing=options.publishing)


def _plan_anew(source: Source, dest: str, place: Destination, options: PullOptions) -> Plan:
    """Plan the newest version for a destination that is locked already.

    Raises:
        ChangedError: the new model belongs to another path, whose lock this pull does not hold.
    """
    plan = resolve(source, options)
    if _locate(dest, plan, options) != place:
        raise ChangedError(f"{plan.uri} became another kind of model while this pull waited.", hint="Pull again.")
    return plan


def _require_same_receipt(place: Destination, expected: Receipt | None) -> None:
    """Refuse to publish over a model that another pull published meanwhile: that model may be newer than the plan.

    Raises:
        ChangedError: the receipt is another; the next try plans anew.
    """
    if read_published(place) != expected:
        raise ChangedError(f"Another pull published {place.path} meanwhile.", hint="Pull again.")


def _note_up_to_date(receipt: Receipt, plan: Plan, place: Destination, progress: Progress) -> Receipt:
    progress.log_info(f"{plan.uri} is there already, unchanged.", path=str(place.path), version=receipt.version)
    return receipt


def _stage(
    source: Source, plan: Plan, place: Destination, staging: StagingArea, options: PullOptions, progress: Progress
) -> StagedModel:
    """Fetch the planned objects into the staging area, under the names they will have at the destination."""
    named = _name_as_published(plan, place)
    if not plan.archive:
        check_conflicts(staging, place, [obj.path for obj in named.objects], named.folders)
    restage_moved_files(staging, place, named.resume_key)
    progress.start_phase(f"Fetching {plan.uri}", plan.size or None)
    staged = fetch_model(source, named, staging, _make_budget(options), options.sha256, options.limits, progress)
    progress.end_phase()
    return staged


def _name_as_published(plan: Plan, place: Destination) -> Plan:
    """Return the plan with the paths of the destination: a single object takes the name of the destination's file."""
    return plan if place.directory else plan.renamed_to(place.path.name)


def _make_budget(options: PullOptions) -> Budget:
    max_bytes = options.max_bytes if options.max_bytes is not None else sys.maxsize
    return Budget(max_bytes=max_bytes, max_files=options.max_files, max_ratio=options.max_ratio)


def _make_receipt(
    plan: Plan, staged: StagedModel, place: Destination, options: PullOptions, started: datetime, clock: PullClock
) -> Receipt:
    return Receipt(
        source=str(plan.uri),
        version=plan.version,
        digest=receipts.model_digest(staged.files, directory=place.directory),
        files=staged.files,
        checks=staged.checks,
        bytes=staged.bytes,
        resumed_bytes=staged.resumed,
        seconds=round(time.monotonic() - clock.started, 3),
        retries=staged.retries + clock.failed_tries(),
        started=started,
        finished=receipts.utc_now(),
        archive=staged.archive,
        signer=options.verifier.signer if options.verifier else None,
    )
