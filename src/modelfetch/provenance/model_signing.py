"""Signatures in the OpenSSF Model Signing format, made and verified: the only home of model_signing.

A signature is a Sigstore bundle round a list of files with their digests. A directory's is the file `model.sig` in it,
a single file's stands beside it as `<name>.sig`: where model_signing's own command writes it and other tools look.

The library decides whether the list is signed, and by whom. It is held against the files elsewhere: the library's own
comparison passes over what the signer chose to ignore, and over what belongs to git.
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
MAX_SIGNATURE_BYTES = 64 * 1024**2  # of a signature: some 300,000 files
SINGLE_FILE = "."  # how a signature calls the single file that it is of

_METHOD, _ALGORITHM = "files", "sha256"  # what model_signing's command makes
# What stands beside the files once they are pulled, and is no part of the model: other tools must not miss it.
_IGNORED_NAMES = (safe_paths.SIGNATURE_NAME, receipts.RECEIPT_SUFFIX, safe_paths.MANIFEST_SUFFIX, ".modelfetch")
_KEY_FORMAT = "PEM, on the elliptic curve P-256, P-384 or P-521"
_PUBLIC_KEY_HINT = "`openssl pkey -in PRIVATE_KEY -pubout` writes the one of a private key."
_PRIVATE_KEY_HINT = (
    "`openssl ecparam -name prime256v1 -genkey -noout` makes one; MODELFETCH_PRIVATE_KEY_PASSWORD unlocks one."
)
_CERTIFICATES_HINT = "Give the root's certificate, and any between it and the signer's; not the signer's key."
_TRUST_CONFIG_HINT = "Whoever runs the Sigstore instance hands it out; without it, the public instance is believed."


class TrustPolicy(NamedTuple):
    """Whose signatures are believed: the holder of a key, of a certificate, or an identity that Sigstore vouches for.

    Attributes:
        public_key: a PEM file.
        certificate_chain: PEM files with the root that a signer's certificate must lead to, and what lies between.
        identity: the signer's e-mail address or URI.
        identity_provider: URL of who issued the identity.
        trust_config: Sigstore's client trust configuration; None for that of the public instance, which is fetched.
    """

    public_key: Path | None = None
    certificate_chain: tuple[Path, ...] = ()
    identity: str = ""
    identity_provider: str = ""
    trust_config: Path | None = None

    @property
    def signer(self) -> str:
        """Who it is, for the receipt: files by the sha256 of their content.

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
    """What to sign with: a PEM file, and its password if it has one."""

    path: Path
    password: str


class SignatureVerifier:
    """Tells what was signed by those who are believed."""

    def __init__(self, policy: TrustPolicy) -> None:
        """Load the library, keys and certificates; nothing is fetched.

        Raises:
            ConfigError: the library is not installed, or a file is missing or not what it should be.
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
        """The sha256 of every file that the signature in `bundle` is of, by path; `.` for a file of its own.

        Raises:
            SignatureError: it is no signature, or not of those who are believed.
            TransientError: Sigstore's trust root cannot be fetched.
        """
        if self._policy.identity and not self._policy.trust_config:
            self._fetch_trust_root()
        recorder = _ManifestRecorder()
        self._config.set_hashing_config(recorder)
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # stdout is data; the library prints advice for signers
                self._config.verify(Path(), bundle)
        except Exception as error:  # anything may be wrong with what somebody else wrote
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
    """Signs with a private key."""

    def __init__(self, key: SigningKey) -> None:
        """Load the library and the key.

        Raises:
            ConfigError: the library is not installed, or the file is missing, no such key, or needs another password.
        """
        self._config = _load_library().signing.Config()
        password: Any = key.password.encode() or None  # declared as text, used as bytes
        with _explain_file_errors(key.path, f"a private key ({_KEY_FORMAT})", _PRIVATE_KEY_HINT):
            self._config.use_elliptic_key_signer(private_key=key.path, password=password)

    def sign_files(self, name: str, files: Mapping[str, str]) -> bytes:
        """Make a signature.

        Args:
            name: the model's, for people.
            files: the sha256 of every file by path; `.` for a file of its own.

        Raises:
            DestinationError: there is no room for temporary files.
        """
        with disk_errors("the temporary directory"), tempfile.TemporaryDirectory(prefix="modelfetch-") as scratch:
            signature = Path(scratch, safe_paths.SIGNATURE_NAME)
            self._config.set_hashing_config(_KnownHashes(_build_manifest(name, files))).sign(Path(), signature)
            return signature.read_bytes()


class _ManifestRecorder:
    """Stands for the files in the library's comparison: equal to whatever was signed, it only remembers it."""

    def __init__(self) -> None:
        self.signed: Any = None

    def add_ignored_paths(self, **_: object) -> None:
        """Nothing is ignored."""

    def hash(self, _: Path, **__: object) -> "_ManifestRecorder":
        """See the class."""
        return self

    def __eq__(self, signed: object) -> bool:
        self.signed = signed
        return True

    __hash__ = None  # type: ignore[assignment]  # it is changed by being compared


class _KnownHashes(NamedTuple):
    """Stands for the hashing of files whose digests are known."""

    manifest: Any

    def hash(self, _: Path) -> Any:  # noqa: ANN401  the library's
        """The manifest to sign."""
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
    """The files of a verified manifest."""
    kinds = {manifest.serialization_type["method"], *(r.digest.algorithm for r in manifest.resource_descriptors())}
    if kinds - {_METHOD, _ALGORITHM}:
        raise SignatureError(
            f"The signature of {address} is of {' and '.join(sorted(kinds))}, not of whole files by sha256.",
            hint="Sign the model with `modelfetch push --sign`, or with model_signing's own command.",
        )
    return {r.identifier: r.digest.digest_hex for r in manifest.resource_descriptors()}


def _load_library() -> ModuleType:
    """The library: on demand, for it takes a second to load."""
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
    """Turn what is wrong with a file that the settings name into a ConfigError."""
    try:
        yield
    except OSError as error:
        raise _unreadable_error(error, path) from error
    except Exception as error:
        # What is of another kind has not the attributes that the library asks it for.
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
    """The first sentence of what a library says."""
    lines = str(error or "").strip().splitlines() or [""]
    return lines[0].strip().rstrip(".")[:300]
