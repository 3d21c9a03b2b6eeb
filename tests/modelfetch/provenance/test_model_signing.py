"""Model signatures: only a trusted signer's list is returned; the format is interoperable with other tools."""

import base64
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import model_signing
import pytest

from modelfetch.errors import ConfigError, SignatureError, TransientError
from modelfetch.provenance.model_signing import SINGLE_FILE, ModelSigner, SignatureVerifier, SigningKey, TrustPolicy
from testkit.file_tree import sha256_hex, write_files
from testkit.signing_keys import KeyPair, make_certified_key, make_key_pair, run_model_signing, sign_model, verify_model
from testkit.sigstore import LocalSigstore

FILES = {"model.bin": b"weights", "sub/config.json": b"{}", "empty": b"", "a b ü.txt": b"labels"}
DIGESTS = {path: sha256_hex(data) for path, data in FILES.items()}


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> KeyPair:
    """Return a key on the common curve P-256."""
    return make_key_pair(tmp_path_factory.mktemp("keys"))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Return a directory with a few files."""
    return write_files(tmp_path / "model", FILES)


def alter_bundle(bundle: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """Change the content of a bundle file in place; return the path."""
    content = json.loads(bundle.read_text(encoding="utf-8"))
    change(content)
    bundle.write_text(json.dumps(content), encoding="utf-8")
    return bundle


def change_payload(bundle: dict[str, Any], change: Callable[[dict[str, Any]], object]) -> None:
    """Change the signed payload of a bundle."""
    content = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
    change(content)
    bundle["dsseEnvelope"]["payload"] = base64.b64encode(json.dumps(content).encode()).decode()


@pytest.mark.parametrize("kind", ["p256", "p384", "p521"])
def test_signed_list_is_verified_with_the_public_key(tmp_path: Path, kind: str) -> None:
    """Verification returns every path with its sha256, on each curve of the format."""
    own = make_key_pair(tmp_path, kind=kind)

    (tmp_path / "model.sig").write_bytes(ModelSigner(SigningKey(own.private, "")).sign_files("model", DIGESTS))

    assert SignatureVerifier(TrustPolicy(public_key=own.public)).verify_bundle(tmp_path / "model.sig", "it") == DIGESTS


def test_encrypted_key_signs_with_its_password(tmp_path: Path) -> None:
    """A private key encrypted by `openssl` signs with the right password."""
    own = make_key_pair(tmp_path, password="s3cret")

    (tmp_path / "a.sig").write_bytes(
        ModelSigner(SigningKey(own.private, "s3cret")).sign_files("model", {SINGLE_FILE: "ab" * 32})
    )

    assert SignatureVerifier(TrustPolicy(public_key=own.public)).verify_bundle(tmp_path / "a.sig", "it") == {
        SINGLE_FILE: "ab" * 32
    }


@pytest.mark.process
def test_signature_made_here_is_verified_by_model_signing_command(tmp_path: Path, key: KeyPair, model: Path) -> None:
    """The library's command verifies a single file, and a directory with the files that a pull leaves there."""
    signer = ModelSigner(SigningKey(key.private, ""))
    (model / "model.sig").write_bytes(signer.sign_files("model", DIGESTS))
    write_files(model, {".modelfetch-receipt": b"{}", ".modelfetch-manifest": b"{}", ".modelfetch/lock": b""})
    (tmp_path / "model.bin.sig").write_bytes(signer.sign_files("model.bin", {SINGLE_FILE: DIGESTS["model.bin"]}))

    run_model_signing("verify", "key", "--public_key", key.public, "--signature", model / "model.sig", model)
    verify_model(model / "model.bin", key, tmp_path / "model.bin.sig")
    with pytest.raises(ValueError, match="Extra files"):
        verify_model(write_files(model, {"more": b""}), key, model / "model.sig")


@pytest.mark.process
def test_signature_of_model_signing_command_is_verified_here(tmp_path: Path, key: KeyPair, model: Path) -> None:
    """The library's signatures of a directory and a single file are verified; git's files are not listed."""
    (model / ".gitattributes").write_bytes(b"*")
    verifier = SignatureVerifier(TrustPolicy(public_key=key.public))

    run_model_signing("sign", "key", "--private_key", key.private, "--signature", model / "model.sig", model)
    sign_model(model / "model.bin", key, tmp_path / "model.bin.sig")

    assert verifier.verify_bundle(model / "model.sig", "it") == DIGESTS
    assert verifier.verify_bundle(tmp_path / "model.bin.sig", "it") == {SINGLE_FILE: DIGESTS["model.bin"]}


def test_files_ignored_by_the_signer_are_not_listed(tmp_path: Path, key: KeyPair, model: Path) -> None:
    """Ignored files, never compared by the library, are missing from the signed list."""
    signature = sign_model(model, key, tmp_path / "model.sig", ignored=("sub",))

    signed = SignatureVerifier(TrustPolicy(public_key=key.public)).verify_bundle(signature, "it")

    assert signed == {path: sha256 for path, sha256 in DIGESTS.items() if path != "sub/config.json"}


def test_certificate_must_chain_to_the_trusted_root(tmp_path: Path, model: Path) -> None:
    """An intermediate in the bundle or the chain leads to the root; another root is refused."""
    signer, foreign = make_certified_key(tmp_path), make_certified_key(tmp_path, "stranger")
    signature = sign_model(model, signer, tmp_path / "model.sig")

    for chain in ((signer.root,), (signer.intermediate, signer.root)):
        assert SignatureVerifier(TrustPolicy(certificate_chain=chain)).verify_bundle(signature, "it") == DIGESTS
    for chain in ((foreign.root,), (signer.intermediate,)):
        with pytest.raises(SignatureError, match="certificate"):
            SignatureVerifier(TrustPolicy(certificate_chain=chain)).verify_bundle(signature, "it")


def test_one_file_may_hold_several_certificates(tmp_path: Path, model: Path) -> None:
    """A PEM file like `fullchain.pem` may hold intermediate and root certificate."""
    signer = make_certified_key(tmp_path)
    both = tmp_path / "both.pem"
    both.write_bytes(signer.intermediate.read_bytes() + signer.root.read_bytes())

    verifier = SignatureVerifier(TrustPolicy(certificate_chain=(both,)))

    assert verifier.verify_bundle(sign_model(model, signer, tmp_path / "model.sig"), "it") == DIGESTS


@pytest.mark.parametrize("kind", ["p256", "p384"])
def test_signature_by_another_key_is_refused(tmp_path: Path, key: KeyPair, model: Path, kind: str) -> None:
    """A signature by another key is refused; the message names the expected signer."""
    other = make_key_pair(tmp_path, "other", kind)
    signature = sign_model(model, key, tmp_path / "model.sig")

    with pytest.raises(SignatureError, match=r"The signature of it is not valid for public key sha256:[0-9a-f]{64}: "):
        SignatureVerifier(TrustPolicy(public_key=other.public)).verify_bundle(signature, "it")


def test_key_and_certificate_signatures_are_not_interchangeable(tmp_path: Path, key: KeyPair, model: Path) -> None:
    """A key's signature fails under a certificate policy, and a certificate's under a key policy."""
    signer = make_certified_key(tmp_path)
    by_key = sign_model(model, key, tmp_path / "by-key.sig")
    by_certificate = sign_model(model, signer, tmp_path / "by-certificate.sig")

    with pytest.raises(SignatureError):
        SignatureVerifier(TrustPolicy(certificate_chain=(signer.root,))).verify_bundle(by_key, "it")
    with pytest.raises(SignatureError):
        SignatureVerifier(TrustPolicy(public_key=signer.public)).verify_bundle(by_certificate, "it")


CHANGES: dict[str, Callable[[dict[str, Any]], object]] = {
    "a digest": lambda b: change_payload(b, lambda p: p["predicate"]["resources"][0].update(digest="00" * 32)),
    "a file more": lambda b: change_payload(
        b, lambda p: p["predicate"]["resources"].append(p["predicate"]["resources"][0])
    ),
    "a file less": lambda b: change_payload(b, lambda p: p["predicate"]["resources"].pop()),
    "what is ignored": lambda b: change_payload(
        b, lambda p: p["predicate"]["serialization"].update(ignore_paths=["."])
    ),
    "the algorithm": lambda b: change_payload(b, lambda p: p["predicate"]["serialization"].update(hash_type="md5")),
    "the type": lambda b: b["dsseEnvelope"].update(payloadType="text/plain"),
    "no signature": lambda b: b["dsseEnvelope"].update(signatures=[]),
    "an empty signature": lambda b: b["dsseEnvelope"]["signatures"][0].update(sig=""),
    "no envelope": lambda b: b.pop("dsseEnvelope"),
    "no material": lambda b: b.pop("verificationMaterial"),
    "the media type": lambda b: b.update(mediaType="text/plain"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_altered_signature_is_refused(
    tmp_path: Path, key: KeyPair, model: Path, change: Callable[[dict[str, Any]], object]
) -> None:
    """Any change to a bundle makes the signature invalid."""
    signature = alter_bundle(sign_model(model, key, tmp_path / "model.sig"), change)

    with pytest.raises(SignatureError, match="not valid"):
        SignatureVerifier(TrustPolicy(public_key=key.public)).verify_bundle(signature, "it")


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"dsseEnvelope": 1}', b"-----BEGIN"]
)
def test_malformed_signature_file_is_refused(tmp_path: Path, key: KeyPair, content: bytes) -> None:
    """A file with any other content raises SignatureError, not a traceback."""
    (tmp_path / "model.sig").write_bytes(content)

    with pytest.raises(SignatureError, match="not valid"):
        SignatureVerifier(TrustPolicy(public_key=key.public)).verify_bundle(tmp_path / "model.sig", "it")


def test_key_hint_is_neither_required_nor_trusted(
    tmp_path: Path, key: KeyPair, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A bundle without a key hint is verified by the key alone; the library's advice does not reach stdout."""
    signature = alter_bundle(
        sign_model(model, key, tmp_path / "model.sig"),
        lambda b: b["verificationMaterial"]["publicKey"].update(hint=""),
    )
    other = make_key_pair(tmp_path, "other")

    assert SignatureVerifier(TrustPolicy(public_key=key.public)).verify_bundle(signature, "it") == DIGESTS
    assert capsys.readouterr().out == ""
    with pytest.raises(SignatureError, match="the bytes were not signed with this key"):
        SignatureVerifier(TrustPolicy(public_key=other.public)).verify_bundle(signature, "it")


@pytest.mark.parametrize(
    "hashing",
    [
        model_signing.hashing.Config().use_shard_serialization(shard_size=4),
        model_signing.hashing.Config().use_file_serialization(hashing_algorithm="blake3"),
    ],
    ids=["shards", "blake3"],
)
def test_signature_with_other_digests_is_refused_by_name(
    tmp_path: Path, key: KeyPair, model: Path, hashing: model_signing.hashing.Config
) -> None:
    """Shards and BLAKE3, made by the library but not its command, are refused by name; shards omit empty files."""
    signer = model_signing.signing.Config().use_elliptic_key_signer(private_key=key.private)
    signer.set_hashing_config(hashing).sign(model, tmp_path / "model.sig")

    with pytest.raises(SignatureError, match=r"is of (sha256-sharded-4|blake3) and (shards|files), not of whole files"):
        SignatureVerifier(TrustPolicy(public_key=key.public)).verify_bundle(tmp_path / "model.sig", "it")


@pytest.mark.parametrize("kind", ["rsa", "ed25519", "k256"])
def test_key_of_another_kind_is_refused_when_loaded(tmp_path: Path, kind: str) -> None:
    """Keys outside the format's three curves are refused before any signature is read."""
    other = make_key_pair(tmp_path, kind=kind)

    with pytest.raises(ConfigError, match=r"key.pub is not a public key \(PEM, on the elliptic curve P-256"):
        SignatureVerifier(TrustPolicy(public_key=other.public))
    with pytest.raises(ConfigError, match=r"key.pem is not a private key \(PEM, on the elliptic curve P-256"):
        ModelSigner(SigningKey(other.private, ""))


@pytest.mark.parametrize("content", [b"", b"garbage", b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"])
def test_file_without_a_key_is_refused_when_loaded(tmp_path: Path, content: bytes) -> None:
    """An invalid key, certificate or trust file is refused with its name and the expected content."""
    file = tmp_path / "file.pem"
    file.write_bytes(content)

    for trust, expected in (
        (TrustPolicy(public_key=file), "a public key"),
        (TrustPolicy(certificate_chain=(file,)), "a chain of certificates"),
        (
            TrustPolicy(identity="a@b.c", identity_provider="https://d.e", trust_config=file),
            "a client trust configuration",
        ),
    ):
        with pytest.raises(ConfigError, match=f"file.pem is not {expected}"):
            SignatureVerifier(trust)
    with pytest.raises(ConfigError, match=r"file.pem is not a private key"):
        ModelSigner(SigningKey(file, ""))


def test_private_key_is_refused_as_public_key(tmp_path: Path, key: KeyPair) -> None:
    """A private key must not be deployed for verification; the hint shows how to write the public key."""
    with pytest.raises(ConfigError, match="is not a public key") as caught:
        SignatureVerifier(TrustPolicy(public_key=key.private))

    assert "openssl pkey" in caught.value.hint


@pytest.mark.parametrize(("locked", "given"), [("s3cret", ""), ("s3cret", "wr0ng"), ("", "s3cret")])
def test_wrong_password_is_a_config_error_without_the_password(tmp_path: Path, locked: str, given: str) -> None:
    """A missing, wrong or needless password is a ConfigError; the message does not repeat the password."""
    own = make_key_pair(tmp_path, password=locked)

    with pytest.raises(ConfigError, match="assword") as caught:
        ModelSigner(SigningKey(own.private, given))

    assert not {"s3cret", "wr0ng"} & {*caught.value.message.split(), *caught.value.hint.split()}
    assert "MODELFETCH_PRIVATE_KEY_PASSWORD" in caught.value.hint


@pytest.mark.parametrize("name", ["nowhere.pem", "."])
def test_unreadable_file_is_a_config_error(tmp_path: Path, name: str) -> None:
    """A missing file, or a directory in place of a file, is a ConfigError."""
    file = tmp_path / name

    for trust in (
        TrustPolicy(public_key=file),
        TrustPolicy(certificate_chain=(file,)),
        TrustPolicy(identity="a@b.c", identity_provider="https://d.e", trust_config=file),
    ):
        with pytest.raises(ConfigError, match="cannot be read"):
            SignatureVerifier(trust)
    with pytest.raises(ConfigError, match="cannot be read"):
        ModelSigner(SigningKey(file, ""))


def test_signer_name_depends_on_file_content_only(tmp_path: Path, key: KeyPair) -> None:
    """Signers differ by the content of their files, not by file names; an identity appears as text."""
    other = make_key_pair(tmp_path, "other")
    copy = tmp_path / "copy.pub"
    copy.write_bytes(key.public.read_bytes())

    assert TrustPolicy(public_key=key.public).signer == TrustPolicy(public_key=copy).signer
    assert TrustPolicy(public_key=key.public).signer == f"public key sha256:{sha256_hex(key.public.read_bytes())}"
    assert TrustPolicy(public_key=key.public).signer != TrustPolicy(public_key=other.public).signer
    assert TrustPolicy(identity="a@b.c", identity_provider="https://d.e").signer == "a@b.c by https://d.e"
    assert TrustPolicy(certificate_chain=(copy, other.public)).signer != TrustPolicy(certificate_chain=(copy,)).signer


def test_identity_is_verified_with_a_sigstore_trust_configuration(tmp_path: Path, key: KeyPair, model: Path) -> None:
    """With the trust configuration of a Sigstore instance, identity and provider are verified offline."""
    sigstore = LocalSigstore()
    signature = sigstore.sign_bundle(
        sign_model(model, key, tmp_path / "model.sig"), "me@example.org", "https://login.example.org"
    )
    trusted, other = (
        sigstore.write_trust_config(tmp_path / "trusted.json"),
        LocalSigstore().write_trust_config(tmp_path / "other.json"),
    )

    def verify_as(identity: str, provider: str, trust_config: Path) -> dict[str, str]:
        trust = TrustPolicy(identity=identity, identity_provider=provider, trust_config=trust_config)
        return SignatureVerifier(trust).verify_bundle(signature, "it")

    assert verify_as("me@example.org", "https://login.example.org", trusted) == DIGESTS
    for identity, provider, trust_config in (
        ("you@example.org", "https://login.example.org", trusted),
        ("me@example.org", "https://evil.example.org", trusted),
        ("me@example.org", "https://login.example.org", other),
    ):
        with pytest.raises(SignatureError, match=f"not valid for {identity} by {provider}"):
            verify_as(identity, provider, trust_config)


@pytest.mark.parametrize("change", [*CHANGES][:6])
def test_altered_signature_of_an_identity_is_refused(tmp_path: Path, key: KeyPair, model: Path, change: str) -> None:
    """Certificate and transparency log do not make an altered bundle valid."""
    sigstore = LocalSigstore()
    signature = sigstore.sign_bundle(
        sign_model(model, key, tmp_path / "model.sig"), "me@example.org", "https://login.example.org"
    )
    trust = TrustPolicy(
        identity="me@example.org",
        identity_provider="https://login.example.org",
        trust_config=sigstore.write_trust_config(tmp_path / "trust.json"),
    )

    with pytest.raises(SignatureError, match="not valid"):
        SignatureVerifier(trust).verify_bundle(alter_bundle(signature, CHANGES[change]), "it")


def test_unreachable_trust_root_is_a_transient_error(
    tmp_path: Path, key: KeyPair, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sigstore's trust root is fetched only to verify a signature; the message names the unreachable host."""
    signature = sign_model(model, key, tmp_path / "model.sig")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    verifier = SignatureVerifier(TrustPolicy(identity="a@b.c", identity_provider="https://d.e"))

    with pytest.raises(TransientError, match=r"cannot be fetched: .*sigstore\.dev") as caught:
        verifier.verify_bundle(signature, "it")

    assert "--trust-config" in caught.value.hint


def test_unwritable_trust_root_cache_is_a_config_error(
    tmp_path: Path, key: KeyPair, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a read-only root file system, the cached trust root cannot be written."""
    signature = sign_model(model, key, tmp_path / "model.sig")
    monkeypatch.setenv("XDG_CACHE_HOME", str(signature))
    monkeypatch.setenv("XDG_DATA_HOME", str(signature))

    with pytest.raises(ConfigError, match="cannot be kept on disk") as caught:
        SignatureVerifier(TrustPolicy(identity="a@b.c", identity_provider="https://d.e")).verify_bundle(signature, "it")

    assert "XDG_CACHE_HOME" in caught.value.hint


@pytest.mark.process
def test_missing_model_signing_package_is_a_config_error_with_install_hint(tmp_path: Path, key: KeyPair) -> None:
    """Without the `sign` extra, modules load, and a verifier raises ConfigError with the package to install."""
    script = (
        "import sys; sys.modules['model_signing'] = None\n"
        "from modelfetch.errors import ConfigError\n"
        "from modelfetch.provenance.model_signing import SignatureVerifier, TrustPolicy\n"
        "from pathlib import Path\n"
        "try: SignatureVerifier(TrustPolicy(public_key=Path(sys.argv[1])))\n"
        "except ConfigError as error: print(error.message, error.hint)\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", script, key.public], capture_output=True, text=True, check=True, env={**os.environ}
    )

    assert "model-signing, which is not installed" in done.stdout
    assert "pip install 'modelfetch[sign]'" in done.stdout
