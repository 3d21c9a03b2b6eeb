"""The use case: resolve, plan, transfer, verify, unpack, publish."""

import sys
import time
from collections.abc import Callable
from datetime import datetime
from typing import NamedTuple

from modelfetch import integrity, ours, publish, retry
from modelfetch import plan as plans
from modelfetch import receipt as receipts
from modelfetch.archive import Budget
from modelfetch.declared import beside, declare
from modelfetch.destination import Destination, locate, published
from modelfetch.errors import CredentialsError, ModelfetchError
from modelfetch.fetch import Fetched, fetch
from modelfetch.manifest import SUFFIX
from modelfetch.plan import Plan
from modelfetch.progress import Progress
from modelfetch.receipt import Receipt
from modelfetch.signature import Judge
from modelfetch.signed import attest
from modelfetch.sources import Access, Found, Source, open_source
from modelfetch.stage import has_leftovers, staging
from modelfetch.transfer import Limits
from modelfetch.uri import ModelURI
from modelfetch.verify import mismatches


class Options(NamedTuple):
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
    judge: Judge | None = None
    limits: Limits = Limits()

    def chosen(self, path: str) -> bool:
        """Whether a directory's file is to be pulled."""
        return plans.chosen(path, self.include, self.exclude)


def pull(uri: ModelURI, dest: str, access: Access, options: Options, watch: Progress) -> Receipt:
    """Put the model at `uri` in place at `dest`, whole and verified, or leave what is there.

    Args:
        uri: where the model is.
        dest: a file or a directory, as `cp` reads it.
        access: credentials and connections.
        options: how to pull.
        watch: is told what happens.

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
        watch.warn(
            f"Try {tries} of {options.retries} failed: {error.message} Next try in {wait:g} s.", reason=error.reason
        )

    tries = retry.pull_tries(
        options.retries,
        options.retry_wait,
        in_grace=lambda: options.in_cluster and time.monotonic() - started < retry.START_UP_GRACE,
        told=told,
    )
    return tries(lambda: _try(source(), dest, options, watch, _Clock(started, lambda: failed)))


class _Clock(NamedTuple):
    """When the pull began, and how many tries of it have failed so far."""

    started: float
    failed: Callable[[], int]


def _try(source: Source, dest: str, options: Options, watch: Progress, clock: _Clock) -> Receipt:
    uri = source.uri
    wanted = plan(source.find(), uri, options)
    place = locate(dest, wanted.objects[0].path, directory=wanted.directory, archive=wanted.archive)
    if (there := up_to_date(place, wanted, options)) and not has_leftovers(place.homes, place.name):
        watch.note(f"{uri} is there already, unchanged.", path=str(place.path), version=there.version)
        return there
    busy = f"Waiting: another pull to {place.path} is at work."
    with staging(place.home, place.name, lambda: watch.note(busy), place.homes) as stage:
        if there := up_to_date(place, wanted, options):
            watch.note(f"{uri} is there already, unchanged.", path=str(place.path), version=there.version)
            return there
        wanted = declare(source, wanted, options.chosen, required=options.require_manifest)
        if options.judge:
            wanted = attest(source, wanted, options.judge, options.chosen, stage)
        staged = wanted if place.directory else wanted.named(place.path.name)
        if not wanted.archive:
            ours.refuse_strangers(stage, place, [o.path for o in staged.objects], staged.folders)
        ours.take_back(stage, place, staged.ident)
        begun = receipts.now()
        watch.begin(f"Fetching {uri}", wanted.size or None)
        fetched = fetch(source, staged, stage, _budget(options), options.sha256, options.limits, watch)
        watch.end()
        receipt = _receipt(uri, wanted, fetched, place, options, begun, clock)
        if wanted.directory and options.sha256:
            integrity.verify_pin(str(uri), options.sha256, [receipt.digest.removeprefix("sha256:")])
        publish.publish(stage, place, receipt)
    watch.note(f"Published {place.path}.", digest=receipt.digest, checks=list(receipt.checks), seconds=receipt.seconds)
    return receipt


def plan(found: Found, uri: ModelURI, options: Options) -> Plan:
    """What of a source these options leave to pull; see `plan.make`."""
    return plans.make(
        found,
        uri,
        extract=options.extract,
        include=options.include,
        exclude=options.exclude,
        max_bytes=options.max_bytes,
        max_files=options.max_files,
    )


def up_to_date(place: Destination, wanted: Plan, options: Options) -> Receipt | None:
    """The receipt of what is there, if it is this version of this model and intact."""
    there = published(place)
    if there is None or not wanted.version:
        return None
    same = (there.source, there.version, there.archive is not None) == (str(wanted.uri), wanted.version, wanted.archive)
    if not same or not _pinned(there, options.sha256) or not receipts.intact(there, place.base):
        return None
    if not _is_of(there, wanted, place):
        return None
    if options.require_manifest and "manifest" not in there.checks:
        return None
    if options.judge and ("signature" not in there.checks or there.signer != options.judge.signer):
        return None  # what another signer vouched for is pulled again, and verified
    return None if options.recheck and mismatches(there, place.base) else there


def _is_of(there: Receipt, wanted: Plan, place: Destination) -> bool:
    """Whether a receipt lists what this plan brings, and agrees with itself: anyone may have written it."""
    listed = {f.path: f.size for f in there.files}
    if not listed or len(listed) != len(there.files) or (not place.directory and len(listed) != 1):
        return False
    if there.digest != receipts.digest(there.files, directory=place.directory):
        return False
    if wanted.archive:
        return True
    objects = wanted.objects if place.directory else wanted.named(place.path.name).objects
    sizes = {o.path: listed.get(o.path) if o.gzip or o.size is None else o.size for o in objects}
    return listed == sizes


def _pinned(there: Receipt, pin: str | None) -> bool:
    return pin is None or pin == (there.archive.sha256 if there.archive else there.digest.removeprefix("sha256:"))


def _budget(options: Options) -> Budget:
    most = options.max_bytes if options.max_bytes is not None else sys.maxsize
    return Budget(max_bytes=most, max_files=options.max_files, max_ratio=options.max_ratio)


def _receipt(
    uri: ModelURI,
    wanted: Plan,
    fetched: Fetched,
    place: Destination,
    options: Options,
    begun: datetime,
    clock: _Clock,
) -> Receipt:
    return Receipt(
        source=str(uri),
        version=wanted.version,
        digest=receipts.digest(fetched.files, directory=place.directory),
        files=fetched.files,
        checks=fetched.checks,
        bytes=fetched.bytes,
        resumed_bytes=fetched.resumed,
        seconds=round(time.monotonic() - clock.started, 3),
        retries=fetched.retries + clock.failed(),
        started=begun,
        finished=receipts.now(),
        archive=fetched.archive,
        signer=options.judge.signer if options.judge else None,
    )


class Seen(NamedTuple):
    """What is at a source, and whether it has a manifest; None if nobody asked for that."""

    plan: Plan
    manifest: bool | None = None

    def as_dict(self) -> dict[str, object]:
        """For machines."""
        wanted = self.plan
        files = [
            {"path": o.path, "size": o.size, "version": o.version, "checksums": dict(o.checksums)}
            for o in wanted.objects
        ]
        return {
            "source": str(wanted.uri),
            "pinned": wanted.pinned,
            "version": wanted.version,
            "directory": wanted.directory,
            "archive": wanted.archive,
            "bytes": wanted.size,
            "manifest": self.manifest,
            "files": files,
        }

    def as_text(self) -> str:
        """For a person."""
        wanted = self.plan
        kind = "directory" if wanted.directory else "archive" if wanted.archive else "file"
        lines = [
            f"source   {wanted.uri}",
            f"kind     {kind}",
            f"version  {wanted.version}",
            f"files    {len(wanted.objects)}",
            f"bytes    {wanted.size}",
            *([] if self.manifest is None else [f"manifest {'yes' if self.manifest else 'no'}"]),
        ]
        for obj in wanted.objects:
            checksums = "  ".join(f"{name}:{value}" for name, value in sorted(obj.checksums.items()))
            lines.append(f"{'?' if obj.size is None else obj.size:>14}  {obj.path}  {checksums}".rstrip())
        return "\n".join(lines)


def look(uri: ModelURI, access: Access, options: Options) -> Seen:
    """What is at `uri`, as a pull would take it; no content is read.

    Raises:
        ModelfetchError: nothing is there, or it cannot be asked.
    """
    source = open_source(uri, access)
    wanted = plan(source.find(), uri, options)
    if wanted.directory:
        return Seen(wanted, any(o.path == SUFFIX for o in wanted.manifests))
    return Seen(wanted, None if uri.scheme in ("http", "https") else bool(beside(source, wanted, required=False)))
