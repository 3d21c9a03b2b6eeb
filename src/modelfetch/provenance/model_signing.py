"""Signatures in the OpenSSF Model Signing format: create and verify, by the library model_signing.

A signature is a Sigstore bundle with a list of files and digests. The signature of a directory is its file `model.sig`,
the signature of a single file is `<name>.sig` beside the file: model_signing's own command writes to the same places.

The library decides whether the list is signed, and by which signer. The list is compared with the files in
`signature_check.py`: the library's own comparison skips the paths that the signer chose to ignore, and git's files.
"""

import contextlib
import hashlib
import io
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Any, NamedTuple

from modelfetch import safe_paths
from modelfetch.errors import ConfigError, ModelfetchError, SignatureError, TransientError
from modelfetch.volume import receipt as receipts
from modelfetch.volume.filesystem import disk_errors

SIGNATURE_SUFFIX = ".sig"
MAX_SIGNATURE_BYTES = 64 * 1024**2  # about 300,000 files
SINGLE_FILE = "."  # path of a single file in its signature

_METHOD, _ALGORITHM = "files", "sha256"  # as model_signing's command uses them
# Names beside the pulled files that are not part of the model: other tools must not report them as unsigned.
_IGNORED_NAMES = (safe_paths.SIGNATURE_NAME, receipts.RECEIPT_SUFFIX, safe_paths.MANIFEST_SUFFIX, ".modelfetch")
_KEY_FORMAT = "PEM, on the elliptic curve P-256, P-384 or P-521"
_PUBLIC_KEY_HINT = "`openssl pkey -in PRIVATE_KEY -pubout` writes the one of a private key."
_PRIVATE_KEY_HINT = (
    "`openssl ecparam -name prime256v1 -genkey -noout` makes one; MODELFETCH_PRIVATE_KEY_PASSWORD unlocks one."
)
_CERTIFICATES_HINT = "Give the root's certificate, and any between it and the signer's; not the signer's key."
_TRUST_CONFIG_HINT = "Whoever runs the Sigstore instance hands it out; without it, the public instance is believed."


class TrustPolicy(NamedTuple):
    """Trusted signer: the holder of a key or certificate, or an identity confirmed by Sigstore.

    Attributes:
        public_key: PEM file.
        certificate_chain: PEM files with the root certificate and the intermediate certificates.
        identity: e-mail address or URI of the signer.
        identity_provider: URL of the issuer of the identity.
        trust_config: Sigstore's client trust configuration; None to fetch the public instance's.
    """

    public_key: Path | None = None
    certificate_chain: tuple[Path, ...] = ()
    identity: str = ""
    identity_provider: str = ""
    trust_config: Path | None = None

    @property
    def signer(self) -> str:
        """Return the signer's description for the receipt; files are named by the sha256 of their content.

        Raises:
            ConfigError: a file cannot be read.
        """
        files = [path for path in (self.public_key, *self.certificate_chain, self.trust_config) if path]
        content = hashlib.sha256(b"".join(map(_read_file, files))).hexdigest()
        if not self.identity:
            return f"{'public key' if self.public_key else 'certificate chain'} sha256:{content}"
        instance = f" (trust configuration sha256:{content})" if self.trust_config else ""
        return f"{self.identity} by {self.identity_provider}{instance}"


class SigningKey(NamedTuple):
    """Private key to sign with: a PEM file, and its password (empty for none)."""

    path: Path
    password: str


class SignatureVerifier:
    """Verifies signatures by one trust policy."""

    def __init__(self, policy: TrustPolicy) -> None:
        """Load the library, keys and certificates; makes no request.

        Raises:
            ConfigError: the library is not installed, or a file is missing or malformed.
        """
        self.signer = policy.signer
        self._policy = policy
        self._config = _load_library().verifying.Config()
        if policy.public_key:
            with _explain_file_errors(policy.public_key, f"a public key ({_KEY_FORMAT})", _PUBLIC_KEY_HINT):
                self._config.use_elliptic_key_verifier(public_key=policy.public_key)
        elif policy.certificate_chain:
            files = " with ".join(map(str, policy.certificate_chain))
            with _explain_file_errors(files, "a chain of certificates (PEM)", _CERTIFICATES_HINT):
                self._config.use_certificate_verifier(certificate_chain=policy.certificate_chain)
        elif policy.trust_config:
            with _explain_file_errors(
                policy.trust_config, "a client trust configuration of Sigstore (JSON)", _TRUST_CONFIG_HINT
            ):
                self._use_sigstore()

    def verify_bundle(self, bundle: Path, address: str) -> dict[str, str]:
        """Verify a signature and return the signed sha256 by path; `.` is the path of a single file.

        Raises:
            SignatureError: the file is not a signature, or the signer is not trusted.
            TransientError: Sigstore's trust root cannot be fetched.
        """
        if self._policy.identity and not self._policy.trust_config:
            self._fetch_trust_root()
        recorder = _ManifestRecorder()
        self._config.set_hashing_config(recorder)
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # stdout is data; the library prints advice for signers
                self._config.verify(Path(), bundle)
        except Exception as error:  # a foreign file may raise anything
            reason = _error_reason(error) or "the bytes were not signed with this key"
            raise SignatureError(
                f"The signature of {address} is not valid for {self.signer}: {reason}.",
                hint="Somebody else signed it, or it was altered: ask who published the model.",
            ) from error
        return _read_manifest(recorder.signed, address)

    def _fetch_trust_root(self) -> None:
        try:
            self._use_sigstore()
        except OSError as error:
            raise ConfigError(
                f"Sigstore's trust root cannot be kept on disk: {error}.",
                hint="Let XDG_DATA_HOME and XDG_CACHE_HOME be writable, or give --trust-config.",
            ) from error
        except Exception as error:
            raise TransientError(
                f"Sigstore's trust root cannot be fetched: {_error_reason(error)} ({_error_reason(error.__cause__)}).",
                hint="Let this network reach tuf-repo-cdn.sigstore.dev, or give --trust-config or --public-key.",
            ) from error

    def _use_sigstore(self) -> None:
        self._config.use_sigstore_verifier(
            identity=self._policy.identity,
            oidc_issuer=self._policy.identity_provider,
            trust_config=self._policy.trust_config,
        )


class ModelSigner:
    """Signs models with a private key."""

    def __init__(self, key: SigningKey) -> None:
        """Load the library and the key.

        Raises:
            ConfigError: the library is not installed, or the file is missing, malformed, or needs a different password.
        """
        self._config = _load_library().signing.Config()
        password: Any = key.password.encode() or None  # declared as text, used as bytes
        with _explain_file_errors(key.path, f"a private key ({_KEY_FORMAT})", _PRIVATE_KEY_HINT):
            self._config.use_elliptic_key_signer(private_key=key.path, password=password)

    def sign_files(self, name: str, files: Mapping[str, str]) -> bytes:
        """Sign a list of files and return the signature.

        Args:
            name: name of the model, for people.
            files: sha256 by path; `.` is the path of a single file.

        Raises:
            DestinationError: the temporary directory has no room.
        """
        with disk_errors("the temporary directory"), tempfile.TemporaryDirectory(prefix="modelfetch-") as scratch:
            signature = Path(scratch, safe_paths.SIGNATURE_NAME)
            self._config.set_hashing_config(_KnownHashes(_build_manifest(name, files))).sign(Path(), signature)
            return signature.read_bytes()


class _ManifestRecorder:
    """Stand-in for the files in the library's comparison: equals every signed manifest, and records the manifest."""

    def __init__(self) -> None:
        self.signed: Any = None

    def add_ignored_paths(self, **_: object) -> None:
        """Ignore the call: no path is left out."""

    def hash(self, _: Path, **__: object) -> "_ManifestRecorder":
        """Return the recorder in place of the hashes of files."""
        return self

    def __eq__(self, signed: object) -> bool:
        self.signed = signed
        return True

    __hash__ = None  # type: ignore[assignment]  # a comparison changes the recorder


class _KnownHashes(NamedTuple):
    """Stand-in for the library's hashing: the digests are known already."""

    manifest: Any

    def hash(self, _: Path) -> Any:  # noqa: ANN401  the library's
        """Return the manifest to sign, without hashing."""
        return self.manifest


def _build_manifest(name: str, files: Mapping[str, str]) -> Any:  # noqa: ANN401  the library's
    from model_signing import manifest  # noqa: PLC0415
    from model_signing._hashing.hashing import Digest  # noqa: PLC0415  its public modules give it no name

    ignored = [] if SINGLE_FILE in files else [PurePosixPath(path) for path in _IGNORED_NAMES]
    return manifest.Manifest(
        name,
        [
            manifest.FileManifestItem(path=PurePosixPath(path), digest=Digest(_ALGORITHM, bytes.fromhex(sha256)))
            for path, sha256 in files.items()
        ],
        manifest.SerializationType.from_args(
            {"method": _METHOD, "hash_type": _ALGORITHM, "allow_symlinks": False, "ignore_paths": ignored}
        ),
    )


def _read_manifest(manifest: Any, address: str) -> dict[str, str]:  # noqa: ANN401  the library's
    """Return the sha256 of a verified manifest's files, by path."""
    kinds = {manifest.serialization_type["method"], *(r.digest.algorithm for r in manifest.resource_descriptors())}
    if kinds - {_METHOD, _ALGORITHM}:
        raise SignatureError(
            f"The signature of {address} is of {' and '.join(sorted(kinds))}, not of whole files by sha256.",
            hint="Sign the model with `modelfetch push --sign`, or with model_signing's own command.",
        )
    return {r.identifier: r.digest.digest_hex for r in manifest.resource_descriptors()}


def _load_library() -> ModuleType:
    """Import model_signing on demand: the import takes a second."""
    try:
        import model_signing  # noqa: PLC0415
    except ImportError as error:
        raise ConfigError(
            f"Signatures need the package model-signing, which is not installed ({error}).",
            hint="pip install 'modelfetch[sign]'; an init image has it if it was built with --build-arg SIGN=1.",
        ) from error
    return model_signing


@contextlib.contextmanager
def _explain_file_errors(path: Path | str, expected: str, hint: str) -> Iterator[None]:
    """Turn errors of a file named by the settings into a ConfigError."""
    try:
        yield
    except OSError as error:
        raise _unreadable_error(error, path) from error
    except Exception as error:
        # An object of the wrong kind lacks the attributes that the library reads.
        reason = "" if isinstance(error, AttributeError) else f": {_error_reason(error)}"
        raise ConfigError(f"{path} is not {expected}{reason}.", hint=hint) from error


def _read_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unreadable_error(error, path) from error


def _unreadable_error(error: OSError, path: Path | str) -> ModelfetchError:
    return ConfigError(
        f"{error.filename or path} cannot be read: {error.strerror or error}.",
        hint="Check the path; in Kubernetes, that the Secret is mounted.",
    )


def _error_reason(error: BaseException | None) -> str:
    """Return the first line of a library's message, without the full stop."""
    lines = str(error or "").strip().splitlines() or [""]
    return lines[0].strip().rstrip(".")[:300]
