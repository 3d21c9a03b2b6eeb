"""Check whether a destination already holds the planned version, intact."""

from modelfetch.plan import Plan
from modelfetch.pull.options import PullOptions
from modelfetch.verify import find_mismatches
from modelfetch.volume import receipt as receipts
from modelfetch.volume.destination import Destination, read_published
from modelfetch.volume.receipt import Receipt


def find_up_to_date(dest: Destination, plan: Plan, options: PullOptions) -> Receipt | None:
    """Return the receipt at the destination if the planned version is published there and intact; else None.

    Size and mtime of every file are compared; `options.recheck` hashes the files as well.
    """
    receipt = read_published(dest)
    if receipt is None or not plan.version or not _is_same_model(receipt, plan):
        return None
    if not _matches_pin(receipt, options.sha256) or not receipts.is_intact(receipt, dest.base):
        return None
    if not _lists_planned_files(receipt, plan, dest) or not _passed_checks(receipt, options):
        return None
    return None if options.recheck and find_mismatches(receipt, dest.base) else receipt


def _is_same_model(receipt: Receipt, plan: Plan) -> bool:
    published = (receipt.source, receipt.version, receipt.archive is not None)
    return published == (str(plan.uri), plan.version, plan.archive)


def _matches_pin(receipt: Receipt, pin: str | None) -> bool:
    stored = receipt.archive.sha256 if receipt.archive else receipt.digest.removeprefix("sha256:")
    return pin is None or pin == stored


def _passed_checks(receipt: Receipt, options: PullOptions) -> bool:
    """Return whether the published model passed the checks that are required now."""
    if options.require_manifest and "manifest" not in receipt.checks:
        return False
    if options.verifier is None:
        return True
    # A model that another signer vouched for is pulled again, and verified.
    return "signature" in receipt.checks and receipt.signer == options.verifier.signer


def _lists_planned_files(receipt: Receipt, plan: Plan, dest: Destination) -> bool:
    """Return whether a receipt lists the planned files and agrees with itself: anyone may have written the receipt."""
    listed = {file.path: file.size for file in receipt.files}
    if not listed or len(listed) != len(receipt.files) or (not dest.directory and len(listed) != 1):
        return False
    if receipt.digest != receipts.model_digest(receipt.files, directory=dest.directory):
        return False
    if plan.archive:
        return True
    objects = plan.objects if dest.directory else plan.renamed_to(dest.path.name).objects
    planned = {obj.path: listed.get(obj.path) if obj.published_size is None else obj.published_size for obj in objects}
    return listed == planned
