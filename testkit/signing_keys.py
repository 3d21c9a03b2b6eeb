"""Fresh signing keys and certificates, and model_signing used as other people use it."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import model_signing
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from cryptography.x509.oid import NameOID

KEY_TYPES: dict[str, Callable[[], ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey]] = {
    "p256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "p384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "p521": lambda: ec.generate_private_key(ec.SECP521R1()),
    "k256": lambda: ec.generate_private_key(ec.SECP256K1()),
    "rsa": lambda: rsa.generate_private_key(65537, 2048),
    "ed25519": ed25519.Ed25519PrivateKey.generate,
}


@dataclass(frozen=True)
class KeyPair:
    """Files of a private and its public key."""

    private: Path
    public: Path


@dataclass(frozen=True)
class CertifiedKeyPair(KeyPair):
    """Key pair with a certificate, an intermediate authority and the root certificate."""

    certificate: Path
    intermediate: Path
    root: Path


def make_key_pair(directory: Path, name: str = "key", kind: str = "p256", password: str = "") -> KeyPair:
    """Make a key pair; a password encrypts the private key."""
    key = KEY_TYPES[kind]()
    pair = KeyPair(directory / f"{name}.pem", directory / f"{name}.pub")
    lock: KeySerializationEncryption = BestAvailableEncryption(password.encode()) if password else NoEncryption()
    pair.private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, lock))
    pair.public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return pair


def make_certified_key(directory: Path, name: str = "leaf") -> CertifiedKeyPair:
    """Make a root, an intermediate authority, and a signer's key certified by the latter."""
    root_key, intermediate_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(3))
    root = _issue_certificate("root", root_key, "root", root_key)
    intermediate = _issue_certificate("intermediate", intermediate_key, "root", root_key)
    own = _issue_certificate("signer", key, "intermediate", intermediate_key, authority=False)
    paths = [directory / f"{name}-{part}" for part in ("key.pem", "key.pub", "own.crt", "intermediate.crt", "root.crt")]
    paths[0].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    paths[1].write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    for path, certificate in zip(paths[2:], (own, intermediate, root), strict=True):
        path.write_bytes(certificate.public_bytes(Encoding.PEM))
    return CertifiedKeyPair(*paths)


def _issue_certificate(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: str,
    issuer_key: ec.EllipticCurvePrivateKey,
    *,
    authority: bool = True,
) -> x509.Certificate:
    def named(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    now = datetime.now(UTC)
    usage = x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
    return (
        x509.CertificateBuilder()
        .subject_name(named(name))
        .issuer_name(named(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .sign(issuer_key, hashes.SHA256())
    )


def sign_model(model: Path, key: KeyPair, signature: Path, ignored: tuple[str, ...] = ()) -> Path:
    """Sign as the library's command does: ignored paths, git's files and the signature stay out."""
    inside = [signature.name] if signature.parent == model else []
    hashing = model_signing.hashing.Config().set_ignored_paths(paths=[*ignored, *inside])
    config = model_signing.signing.Config()
    if isinstance(key, CertifiedKeyPair):
        config.use_certificate_signer(
            private_key=key.private, signing_certificate=key.certificate, certificate_chain=[key.intermediate]
        )
    else:
        config.use_elliptic_key_signer(private_key=key.private)
    config.set_hashing_config(hashing).sign(model, signature)
    return signature


def verify_model(model: Path, key: KeyPair, signature: Path) -> None:
    """Verify as the library's command does, knowing nothing of additional files.

    Raises:
        ValueError: the model differs from the signed files.
    """
    inside = [signature.name] if signature.parent == model else []
    hashing = model_signing.hashing.Config().set_ignored_paths(paths=inside)
    config = model_signing.verifying.Config().use_elliptic_key_verifier(public_key=key.public)
    config.set_hashing_config(hashing).verify(model, signature)


def run_model_signing(*args: object) -> str:
    """Run model_signing's own command; require success and return its output."""
    words = [sys.executable, "-m", "model_signing", *map(str, args)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
