"""Private Sigstore: certifies any identity, logs signatures, and writes the trust configuration. Nothing is served.

Certificates, log entries and bundles have the public instance's format (https://docs.sigstore.dev/about/bundle/,
RFC 6962 for the certificate log), so the real client verifies them, offline.
"""

import base64
import hashlib
import json
import struct
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from testkit.file_tree import sha256_hex

Private = ec.EllipticCurvePrivateKey
_ISSUER = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.1")  # Fulcio's: who vouches for the identity
_STAMPS = x509.ObjectIdentifier("1.3.6.1.4.1.11129.2.4.2")  # RFC 6962: signed certificate timestamps
_TYPE = "application/vnd.in-toto+json"


class LocalSigstore:
    """A certificate authority and two logs: certificates, signatures."""

    def __init__(self) -> None:
        """Make the keys and the authority's certificate."""
        self._authority, self._certificates, self._log = (ec.generate_private_key(ec.SECP256R1()) for _ in range(3))
        self._now = datetime.now(UTC).replace(microsecond=0)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "an authority of the tests")])
        self._root = (
            self._certificate_builder(name, self._authority, timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(authority=True), critical=True)
            .sign(self._authority, hashes.SHA256())
        )

    def write_trust_config(self, path: Path) -> Path:
        """Write the trust configuration of a client."""
        valid = {"start": _utc_text(self._now - timedelta(days=1))}
        root = {
            "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
            "certificateAuthorities": [
                {
                    "subject": {"organization": "tests", "commonName": "an authority of the tests"},
                    "uri": "https://fulcio.invalid",
                    "certChain": {"certificates": [{"rawBytes": _base64_text(_certificate_der(self._root))}]},
                    "validFor": valid,
                }
            ],
            "tlogs": [_trusted_log("https://rekor.invalid", self._log, valid)],
            "ctlogs": [_trusted_log("https://ctfe.invalid", self._certificates, valid)],
        }
        signing = {"mediaType": "application/vnd.dev.sigstore.signingconfig.v0.2+json"}
        media = "application/vnd.dev.sigstore.clienttrustconfig.v0.1+json"
        path.write_text(json.dumps({"mediaType": media, "trustedRoot": root, "signingConfig": signing}))
        return path

    def sign_bundle(self, bundle: Path, identity: str, provider: str) -> Path:
        """Turn a bundle signed by a key into one signed by an identity, in place, over the same files."""
        payload = base64.b64decode(json.loads(bundle.read_text())["dsseEnvelope"]["payload"])
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._issue_certificate(key, identity, provider)
        signature = _sign_bytes(key, f"DSSEv1 {len(_TYPE)} {_TYPE} {len(payload)} ".encode() + payload)
        entry = self._log_entry(payload, signature, certificate)
        content = {
            "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
            "verificationMaterial": {
                "certificate": {"rawBytes": _base64_text(_certificate_der(certificate))},
                "tlogEntries": [entry],
            },
            "dsseEnvelope": {
                "payload": _base64_text(payload),
                "payloadType": _TYPE,
                "signatures": [{"sig": _base64_text(signature)}],
            },
        }
        bundle.write_text(json.dumps(content))
        return bundle

    def _issue_certificate(self, key: Private, identity: str, provider: str) -> x509.Certificate:
        """Issue a certificate for ten minutes, with a timestamp of the certificate log."""
        builder = (
            self._certificate_builder(x509.Name([]), key, timedelta(minutes=10))
            .add_extension(_key_usage(authority=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), critical=False)
            .add_extension(x509.SubjectAlternativeName([x509.RFC822Name(identity)]), critical=True)
            .add_extension(x509.UnrecognizedExtension(_ISSUER, provider.encode()), critical=False)
        )
        unstamped = builder.sign(self._authority, hashes.SHA256()).tbs_certificate_bytes
        entry = _key_id(self._authority) + len(unstamped).to_bytes(3, "big") + unstamped
        millis = int(self._now.timestamp()) * 1000
        stamp = _sign_bytes(self._certificates, struct.pack("!BBQH", 0, 0, millis, 1) + entry + struct.pack("!H", 0))
        sct = b"\0" + _key_id(self._certificates) + struct.pack("!QHBBH", millis, 0, 4, 3, len(stamp)) + stamp
        listed = struct.pack("!HH", len(sct) + 2, len(sct)) + sct
        octets = x509.UnrecognizedExtension(_STAMPS, b"\x04" + _der_length(len(listed)) + listed)
        return builder.add_extension(octets, critical=False).sign(self._authority, hashes.SHA256())

    def _certificate_builder(self, name: x509.Name, key: Private, valid: timedelta) -> x509.CertificateBuilder:
        issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "an authority of the tests")])
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(self._now - timedelta(minutes=1))
            .not_valid_after(self._now + valid)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._authority.public_key()), critical=False
            )
        )

    def _log_entry(self, payload: bytes, signature: bytes, certificate: x509.Certificate) -> dict[str, Any]:
        """Return the entry of a log with one entry: the inclusion proof is the entry's own hash."""
        verifier = _base64_text(certificate.public_bytes(Encoding.PEM))
        spec = {
            "envelopeHash": {"algorithm": "sha256", "value": sha256_hex(payload)},
            "payloadHash": {"algorithm": "sha256", "value": sha256_hex(payload)},
            "signatures": [{"signature": _base64_text(signature), "verifier": verifier}],
        }
        body = _canonical_json({"apiVersion": "0.0.1", "kind": "dsse", "spec": spec})
        log, when = _key_id(self._log), int(self._now.timestamp())
        promise = {"body": _base64_text(body), "integratedTime": when, "logID": log.hex(), "logIndex": 0}
        root = _base64_text(hashlib.sha256(b"\0" + body).digest())
        note = f"rekor.invalid - 1\n1\n{root}\n"
        checkpoint = f"{note}\n\u2014 rekor.invalid {_base64_text(log[:4] + _sign_bytes(self._log, note.encode()))}\n"
        return {
            "logIndex": "0",
            "logId": {"keyId": _base64_text(log)},
            "kindVersion": {"kind": "dsse", "version": "0.0.1"},
            "integratedTime": str(when),
            "inclusionPromise": {
                "signedEntryTimestamp": _base64_text(_sign_bytes(self._log, _canonical_json(promise)))
            },
            "inclusionProof": {
                "logIndex": "0",
                "rootHash": root,
                "treeSize": "1",
                "hashes": [],
                "checkpoint": {"envelope": checkpoint},
            },
            "canonicalizedBody": _base64_text(body),
        }


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    others = ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only")
    never = dict.fromkeys((*others, "decipher_only"), False)
    return x509.KeyUsage(digital_signature=not authority, key_cert_sign=authority, crl_sign=authority, **never)


def _trusted_log(url: str, key: Private, valid: Mapping[str, str]) -> dict[str, Any]:
    public = {"rawBytes": _base64_text(_public_der(key)), "keyDetails": "PKIX_ECDSA_P256_SHA_256", "validFor": valid}
    identity = {"keyId": _base64_text(_key_id(key))}
    return {"baseUrl": url, "hashAlgorithm": "SHA2_256", "publicKey": public, "logId": identity}


def _canonical_json(content: Mapping[str, Any]) -> bytes:
    """Serialise by RFC 8785, sufficient for this plain content."""
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()


def _sign_bytes(key: Private, data: bytes) -> bytes:
    return key.sign(data, ec.ECDSA(hashes.SHA256()))


def _public_der(key: Private) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _key_id(key: Private) -> bytes:
    return hashlib.sha256(_public_der(key)).digest()


def _certificate_der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.DER)


def _der_length(count: int) -> bytes:
    """Encode a DER length below 256."""
    return bytes([count]) if count < 128 else bytes([0x81, count])


def _base64_text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _utc_text(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"
