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

SUFFIX = ".sig"
MAX_BYTES = 64 * 1024**2  # of a signature: some 300,000 files
ITSELF = "."  # how a signature calls the single file that it is of

_METHOD, _ALGORITHM = "files", "sha256"  # what model_signing's command makes
# What stands beside the files once they are pulled, and is no part of the model: other tools must not miss it.
_BESIDE = (safe_paths.SIGNATURE_NAME, receipts.RECEIPT_SUFFIX, safe_paths.MANIFEST_SUFFIX, ".modelfetch")
_CURVES = "PEM, on the elliptic curve P-256, P-384 or P-521"
_PUBLIC_KEY = "`openssl pkey -in PRIVATE_KEY -pubout` writes the one of a private key."
_PRIVATE_KEY = (
    "`openssl ecparam -name prime256v1 -genkey -noout` makes one; MODELFETCH_PRIVATE_KEY_PASSWORD unlocks one."
)
_CERTIFICATES = "Give the root's certificate, and any between it and the signer's; not the signer's key."
_TRUST_CONFIG = "Whoever runs the Sigstore instance hands it out; without it, the public instance is believed."


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
        content = hashlib.sha256(b"".join(map(_read, files))).hexdigest()
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

    def __init__(self, trust: TrustPolicy) -> None:
        """Load the library, keys and certificates; nothing is fetched.

        Raises:
            ConfigError: the library is not installed, or a file is missing or not what it should be.
        """
        self.signer = trust.signer
        self._trust = trust
        self._config = _library().verifying.Config()
        if trust.public_key:
            with _unusable(trust.public_key, f"a public key ({_CURVES})", _PUBLIC_KEY):
                self._config.use_elliptic_key_verifier(public_key=trust.public_key)
        elif trust.certificate_chain:
            files = " with ".join(map(str, trust.certificate_chain))
            with _unusable(files, "a chain of certificates (PEM)", _CERTIFICATES):
                self._config.use_certificate_verifier(certificate_chain=trust.certificate_chain)
        elif trust.trust_config:
            with _unusable(trust.trust_config, "a client trust configuration of Sigstore (JSON)", _TRUST_CONFIG):
                self._use_sigstore()

    def verified_files(self, bundle: Path, what: str) -> dict[str, str]:
        """The sha256 of every file that the signature in `bundle` is of, by path; `.` for a file of its own.

        Raises:
            SignatureError: it is no signature, or not of those who are believed.
            TransientError: Sigstore's trust root cannot be fetched.
        """
        if self._trust.identity and not self._trust.trust_config:
            self._fetch_trust_root()
        witness = _Witness()
        self._config.set_hashing_config(witness)
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # stdout is data; the library prints advice for signers
                self._config.verify(Path(), bundle)
        except Exception as error:  # anything may be wrong with what somebody else wrote
            reason = _reason(error) or "the bytes were not signed with this key"
            raise SignatureError(
                f"The signature of {what} is not valid for {self.signer}: {reason}.",
                hint="Somebody else signed it, or it was altered: ask who published the model.",
            ) from error
        return _listed(witness.signed, what)

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
                f"Sigstore's trust root cannot be fetched: {_reason(error)} ({_reason(error.__cause__)}).",
                hint="Let this network reach tuf-repo-cdn.sigstore.dev, or give --trust-config or --public-key.",
            ) from error

    def _use_sigstore(self) -> None:
        self._config.use_sigstore_verifier(
            identity=self._trust.identity,
            oidc_issuer=self._trust.identity_provider,
            trust_config=self._trust.trust_config,
        )


class ModelSigner:
    """Signs with a private key."""

    def __init__(self, key: SigningKey) -> None:
        """Load the library and the key.

        Raises:
            ConfigError: the library is not installed, or the file is missing, no such key, or needs another password.
        """
        self._config = _library().signing.Config()
        password: Any = key.password.encode() or None  # declared as text, used as bytes
        with _unusable(key.path, f"a private key ({_CURVES})", _PRIVATE_KEY):
            self._config.use_elliptic_key_signer(private_key=key.path, password=password)

    def sign(self, name: str, files: Mapping[str, str]) -> bytes:
        """Make a signature.

        Args:
            name: the model's, for people.
            files: the sha256 of every file by path; `.` for a file of its own.

        Raises:
            DestinationError: there is no room for temporary files.
        """
        with disk_errors("the temporary directory"), tempfile.TemporaryDirectory(prefix="modelfetch-") as scratch:
            signature = Path(scratch, safe_paths.SIGNATURE_NAME)
            self._config.set_hashing_config(_Known(_manifest(name, files))).sign(Path(), signature)
            return signature.read_bytes()


class _Witness:
    """Stands for the files in the library's comparison: equal to whatever was signed, it only remembers it."""

    def __init__(self) -> None:
        self.signed: Any = None

    def add_ignored_paths(self, **_: object) -> None:
        """Nothing is ignored."""

    def hash(self, _: Path, **__: object) -> "_Witness":
        """See the class."""
        return self

    def __eq__(self, signed: object) -> bool:
        self.signed = signed
        return True

    __hash__ = None  # type: ignore[assignment]  # it is changed by being compared


class _Known(NamedTuple):
    """Stands for the hashing of files whose digests are known."""

    manifest: Any

    def hash(self, _: Path) -> Any:  # noqa: ANN401  the library's
        """The manifest to sign."""
        return self.manifest


def _manifest(name: str, files: Mapping[str, str]) -> Any:  # noqa: ANN401  the library's
    from model_signing import manifest  # noqa: PLC0415
    from model_signing._hashing.hashing import Digest  # noqa: PLC0415  its public modules give it no name

    ignored = [] if ITSELF in files else [PurePosixPath(path) for path in _BESIDE]
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


def _listed(manifest: Any, what: str) -> dict[str, str]:  # noqa: ANN401  the library's
    """The files of a verified manifest."""
    kinds = {manifest.serialization_type["method"], *(r.digest.algorithm for r in manifest.resource_descriptors())}
    if kinds - {_METHOD, _ALGORITHM}:
        raise SignatureError(
            f"The signature of {what} is of {' and '.join(sorted(kinds))}, not of whole files by sha256.",
            hint="Sign the model with `modelfetch push --sign`, or with model_signing's own command.",
        )
    return {r.identifier: r.digest.digest_hex for r in manifest.resource_descriptors()}


def _library() -> ModuleType:
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
def _unusable(path: Path | str, wanted: str, hint: str) -> Iterator[None]:
    """Turn what is wrong with a file that the settings name into a ConfigError."""
    try:
        yield
    except OSError as error:
        raise _unreadable(error, path) from error
    except Exception as error:
        # What is of another kind has not the attributes that the library asks it for.
        reason = "" if isinstance(error, AttributeError) else f": {_reason(error)}"
        raise ConfigError(f"{path} is not {wanted}{reason}.", hint=hint) from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unreadable(error, path) from error


def _unreadable(error: OSError, path: Path | str) -> ModelfetchError:
    return ConfigError(
        f"{error.filename or path} cannot be read: {error.strerror or error}.",
        hint="Check the path; in Kubernetes, that the Secret is mounted.",
    )


def _reason(error: BaseException | None) -> str:
    """The first sentence of what a library says."""
    lines = str(error or "").strip().splitlines() or [""]
    return lines[0].strip().rstrip(".")[:300]
