"""Options of a pull, as values: the use case reads no environment."""

from typing import NamedTuple

from modelfetch.plan import PlanLimits
from modelfetch.provenance.model_signing import SignatureVerifier
from modelfetch.transfer.adaptive_pool import TransferLimits


class PullOptions(NamedTuple):
    """Options of one pull.

    Attributes:
        retries: tries of the whole pull.
        retry_wait: seconds before the second try; each later wait is twice as long.
        in_cluster: treat missing credentials as transient during the first minute, as in a new pod.
        extract: extract an archive.
        include: globs of files to select from a directory; every file if empty.
        exclude: globs of files to leave out.
        sha256: the caller's pin, in lower-case hexadecimal.
        recheck: hash published files before a pull counts as up to date.
        max_bytes: largest number of bytes to publish; None for the free space.
        max_files: largest number of files to publish.
        max_ratio: largest number of bytes that one byte of an archive may become.
        require_manifest: refuse objects that no manifest lists.
        verifier: verifies the model's signature; None if no signature is needed.
        limits: memory and connections.
        publishing: how a directory is replaced; see `Destination`.
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
    publishing: str = "auto"

    @property
    def plan_limits(self) -> PlanLimits:
        """Return the options that decide what is planned."""
        return PlanLimits(self.extract, self.include, self.exclude, self.max_bytes, self.max_files)
