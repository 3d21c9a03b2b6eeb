"""Signatures in the OpenSSF Model Signing format: making and verifying, the only user of the library model_signing.

A signature is a Sigstore bundle with a list of files and their digests. A directory holds the signature as `model.sig`;
a single file has `<name>.sig` as a sidecar: the paths where model_signing's own command writes and other tools look.

The library decides whether the list is signed, and by which signer. `signature_check` compares the list with the files:
the library's own comparison skips the files ignored by the signer, and git's files.
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
from modelfetch.volume.filesystem import disk_errors

SIGNATURE_SUFFIX = ".sig"
MAX_SIGNATURE_BYTES = 64 * 1024**2  # room for some 300,000 files
SINGLE_FILE = "."  # path of the only file in a single file's signature

_METHOD, _ALGORITHM = "files", "sha256"  # as written by model_signing's command
# Files that a pull leaves beside the model: ignored in the signature, or other tools would report them as unsigned.
_IGNORED_NAMES = (
    safe_paths.SIGNATURE_NAME,
    *(safe_paths.RECEIPT_SUFFIX, safe_paths.MANIFEST_SUFFIX, ".modelfetch"),
    *(safe_paths.OLD_RECEIPT_SUFFIX, safe_paths.OLD_MANIFEST_SUFFIX),
)
_KEY_FORMAT = "PEM, on the elliptic curve P-256, P-384 or P-521"
_PUBLIC_KEY_HINT = "`openssl pkey -in PRIVATE_KEY -pubout` writes the one of a private key."
_PRIVATE_KEY_HINT = (
    "`openssl ecparam -name prime256v1 -genkey -noout` makes one; MODELFETCH_PRIVATE_KEY_PASSWORD unlocks one."
)
_CERTIFICATES_HINT = "Give the root's certificate, and any between it and the signer's; not the signer's key."
_TRUST_CONFIG_HINT = "Whoever runs the Sigstore instance hands it out; without it, the public instance is believed."


class TrustPolicy(NamedTuple):
    """Trusted signer: the holder of a key, of a certificate, or an identity certified by Sigstore.

    Attributes:
        public_key: PEM file with the signer's public key.
        certificate_chain: PEM files with the trusted root certificate and the intermediate certificates.
        identity: the signer's e-mail address or URI.
        identity_provider: URL of the identity's issuer.
        trust_config: Sigstore's client trust configuration; None to fetch the public instance's.
    """

    public_key: Path | None = None
    certificate_chain: tuple[Path, ...] = ()
    identity: str = ""
    identity_provider: str = ""
    trust_config: Path | None = None

    @property
    def signer(self) -> str:
        """Return the signer's name for the receipt; files appear by the sha256 of their content.

        Raises:
            ConfigError: a file cannot be read.
        """
        files = [path for path in (self.public_key, *self.certificate_chain, self.trust_config) if path]
        content = hashlib.sha256(b"".join(map(_read_file, files))).hexdigest()
        if not self.identity:
            return f"{'public key' if self.public_key else 'certificate chain'} sha256:{content}"
        at = f" (trust configuration sha256:{content})" if self.trust_config else ""
        return f"{self.identity} by {self.identity_provider}{at}"


class SigningKey(NamedTuple):
    """Private key for signing: a PEM file, and the password; empty if the key has none."""

    path: Path
    password: str


class SignatureVerifier:
    """Verifier of signatures under a trust policy."""

    def __init__(self, policy: TrustPolicy) -> None:
        """Load the library, keys and certificates; fetch nothing.

        Raises:
            ConfigError: the library is not installed, or a file is missing or of the wrong kind.
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
        """Return the sha256 of every file in the signed list of `bundle`, by path; `.` is the path of a single file.

        Raises:
            SignatureError: the bundle is not a signature, or not the trusted signer's.
            TransientError: Sigstore's trust root cannot be fetched.
        """
        if self._policy.identity and not self._policy.trust_config:
            self._fetch_trust_root()
        recorder = _ManifestRecorder()
        self._config.set_hashing_config(recorder)
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # stdout is data; the library prints advice for signers
                self._config.verify(Path(), bundle)
        except Exception as error:  # an untrusted bundle may be malformed in any way
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
    """Signer with a private key."""

    def __init__(self, key: SigningKey) -> None:
        """Load the library and the key.

        Raises:
            ConfigError: the library is not installed, or the file is missing, no private key, or has another password.
        """
        self._config = _load_library().signing.Config()
        password: Any = key.password.encode() or None  # declared as text, used as bytes
        with _explain_file_errors(key.path, f"a private key ({_KEY_FORMAT})", _PRIVATE_KEY_HINT):
            self._config.use_elliptic_key_signer(private_key=key.path, password=password)

    def sign_files(self, name: str, files: Mapping[str, str]) -> bytes:
        """Return the signature of a list of files.

        Args:
            name: name of the model, for people.
            files: sha256 of every file by path; `.` is the path of a single file.

        Raises:
            DestinationError: no room for temporary files.
        """
        with disk_errors("the temporary directory"), tempfile.TemporaryDirectory(prefix="modelfetch-") as scratch:
            signature = Path(scratch, safe_paths.SIGNATURE_NAME)
            self._config.set_hashing_config(_KnownHashes(_build_manifest(name, files))).sign(Path(), signature)
            return signature.read_bytes()


class _ManifestRecorder:
    """Stand-in for the files in the library's comparison: equal to any signed manifest, and keeps that manifest."""

    def __init__(self) -> None:
        self.signed: Any = None

    def add_ignored_paths(self, **_: object) -> None:
        """Do nothing: no path is ignored."""

    def hash(self, _: Path, **__: object) -> "_ManifestRecorder":
        """Return this stand-in instead of hashing files."""
        return self

    def __eq__(self, signed: object) -> bool:
        self.signed = signed
        return True

    __hash__ = None  # type: ignore[assignment]  # a comparison changes the object


class _KnownHashes(NamedTuple):
    """Stand-in for hashing, for files with known digests."""

    manifest: Any

    def hash(self, _: Path) -> Any:  # noqa: ANN401  the library's
        """Return the manifest to sign."""
        return self.manifest


def _build_manifest(name: str, files: Mapping[str, str]) -> Any:  # noqa: ANN401  the library's
    from model_signing import manifest  # noqa: PLC0415
    from model_signing._hashing.hashing import Digest  # noqa: PLC0415  no public module exports this class

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
    """Return the sha256 of each file in a verified manifest, by path."""
    kinds = {manifest.serialization_type["method"], *(r.digest.algorithm for r in manifest.resource_descriptors())}
    if kinds - {_METHOD, _ALGORITHM}:
        raise SignatureError(
            f"The signature of {address} is of {' and '.join(sorted(kinds))}, not of whole files by sha256.",
            hint="Sign the model with `modelfetch push --sign`, or with model_signing's own command.",
        )
    return {r.identifier: r.digest.digest_hex for r in manifest.resource_descriptors()}


def _load_library() -> ModuleType:
    """Import the library on demand: the import takes a second."""
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
    """Turn errors about a file named in the settings into a ConfigError."""
    try:
        yield
    except OSError as error:
        raise _unreadable_error(error, path) from error
    except Exception as error:
        # The library reads missing attributes of a key of another kind: the AttributeError says nothing to a user.
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
    """Return the first line of a library's error message, at most 300 characters."""
    lines = str(error or "").strip().splitlines() or [""]
    return lines[0].strip().rstrip(".")[:300]
