"""What those who are believed have signed is listed, and nothing that anybody else says; others read what is made."""

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
    """A key on P-256, as most people make them."""
    return make_key_pair(tmp_path_factory.mktemp("keys"))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A directory of a few files."""
    return write_files(tmp_path / "model", FILES)


def altered(bundle: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """The bundle with something in it changed."""
    content = json.loads(bundle.read_text(encoding="utf-8"))
    change(content)
    bundle.write_text(json.dumps(content), encoding="utf-8")
    return bundle


def payload(bundle: dict[str, Any], change: Callable[[dict[str, Any]], object]) -> None:
    """Change what is signed."""
    content = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
    change(content)
    bundle["dsseEnvelope"]["payload"] = base64.b64encode(json.dumps(content).encode()).decode()


@pytest.mark.parametrize("kind", ["p256", "p384", "p521"])
def test_what_a_key_signed_is_listed_by_its_public_one(tmp_path: Path, kind: str) -> None:
    """Every path with its sha256, on each curve of the format."""
    own = make_key_pair(tmp_path, kind=kind)

    (tmp_path / "model.sig").write_bytes(ModelSigner(SigningKey(own.private, "")).sign_files("model", DIGESTS))

    assert SignatureVerifier(TrustPolicy(public_key=own.public)).verify_bundle(tmp_path / "model.sig", "it") == DIGESTS


def test_a_locked_key_signs_with_its_password(tmp_path: Path) -> None:
    """As `openssl` locks them."""
    own = make_key_pair(tmp_path, password="s3cret")

    (tmp_path / "a.sig").write_bytes(
        ModelSigner(SigningKey(own.private, "s3cret")).sign_files("model", {SINGLE_FILE: "ab" * 32})
    )

    assert SignatureVerifier(TrustPolicy(public_key=own.public)).verify_bundle(tmp_path / "a.sig", "it") == {
        SINGLE_FILE: "ab" * 32
    }


@pytest.mark.process
def test_others_verify_what_is_signed_here(tmp_path: Path, key: KeyPair, model: Path) -> None:
    """The library's command takes a directory with what a pull leaves beside the model, and a single file."""
    signer = ModelSigner(SigningKey(key.private, ""))
    (model / "model.sig").write_bytes(signer.sign_files("model", DIGESTS))
    write_files(model, {".modelfetch.json": b"{}", ".modelfetch-manifest.json": b"{}", ".modelfetch/lock": b""})
    (tmp_path / "model.bin.sig").write_bytes(signer.sign_files("model.bin", {SINGLE_FILE: DIGESTS["model.bin"]}))

    run_model_signing("verify", "key", "--public_key", key.public, "--signature", model / "model.sig", model)
    verify_model(model / "model.bin", key, tmp_path / "model.bin.sig")
    with pytest.raises(ValueError, match="Extra files"):
        verify_model(write_files(model, {"more": b""}), key, model / "model.sig")


@pytest.mark.process
def test_what_others_sign_is_listed_here(tmp_path: Path, key: KeyPair, model: Path) -> None:
    """The library's command signs a directory and a single file; git's files are none of its business."""
    (model / ".gitattributes").write_bytes(b"*")
    judge = SignatureVerifier(TrustPolicy(public_key=key.public))

    run_model_signing("sign", "key", "--private_key", key.private, "--signature", model / "model.sig", model)
    sign_model(model / "model.bin", key, tmp_path / "model.bin.sig")

    assert judge.verify_bundle(model / "model.sig", "it") == DIGESTS
    assert judge.verify_bundle(tmp_path / "model.bin.sig", "it") == {SINGLE_FILE: DIGESTS["model.bin"]}


def test_files_that_the_signer_ignored_are_not_signed(tmp_path: Path, key: KeyPair, model: Path) -> None:
    """The library lets them pass whatever they are; they are not on the list."""
    signature = sign_model(model, key, tmp_path / "model.sig", ignored=("sub",))

    signed = SignatureVerifier(TrustPolicy(public_key=key.public)).verify_bundle(signature, "it")

    assert signed == {path: sha256 for path, sha256 in DIGESTS.items() if path != "sub/config.json"}


def test_a_certificate_must_lead_to_the_root_that_is_believed(tmp_path: Path, model: Path) -> None:
    """By way of an authority that the signature brings along, or that is given; not to another root."""
    signer, stranger = make_certified_key(tmp_path), make_certified_key(tmp_path, "stranger")
    signature = sign_model(model, signer, tmp_path / "model.sig")

    for chain in ((signer.root,), (signer.intermediate, signer.root)):
        assert SignatureVerifier(TrustPolicy(certificate_chain=chain)).verify_bundle(signature, "it") == DIGESTS
    for chain in ((stranger.root,), (signer.intermediate,)):
        with pytest.raises(SignatureError, match="certificate"):
            SignatureVerifier(TrustPolicy(certificate_chain=chain)).verify_bundle(signature, "it")


def test_several_certificates_may_be_in_one_file(tmp_path: Path, model: Path) -> None:
    """As `fullchain.pem` has them."""
    signer = make_certified_key(tmp_path)
    both = tmp_path / "both.pem"
    both.write_bytes(signer.intermediate.read_bytes() + signer.root.read_bytes())

    judge = SignatureVerifier(TrustPolicy(certificate_chain=(both,)))

    assert judge.verify_bundle(sign_model(model, signer, tmp_path / "model.sig"), "it") == DIGESTS


@pytest.mark.parametrize("kind", ["p256", "p384"])
def test_another_key_is_not_believed(tmp_path: Path, key: KeyPair, model: Path, kind: str) -> None:
    """And the message says whose signature was looked for."""
    other = make_key_pair(tmp_path, "other", kind)
    signature = sign_model(model, key, tmp_path / "model.sig")

    with pytest.raises(SignatureError, match=r"The signature of it is not valid for public key sha256:[0-9a-f]{64}: "):
        SignatureVerifier(TrustPolicy(public_key=other.public)).verify_bundle(signature, "it")


def test_a_key_does_not_pass_for_a_certificate_nor_the_reverse(tmp_path: Path, key: KeyPair, model: Path) -> None:
    """Each way of signing is verified as what it is."""
    signer = make_certified_key(tmp_path)
    by_key = sign_model(model, key, tmp_path / "by-key.sig")
    by_certificate = sign_model(model, signer, tmp_path / "by-certificate.sig")

    with pytest.raises(SignatureError):
        SignatureVerifier(TrustPolicy(certificate_chain=(signer.root,))).verify_bundle(by_key, "it")
    with pytest.raises(SignatureError):
        SignatureVerifier(TrustPolicy(public_key=signer.public)).verify_bundle(by_certificate, "it")


CHANGES: dict[str, Callable[[dict[str, Any]], object]] = {
    "a digest": lambda b: payload(b, lambda p: p["predicate"]["resources"][0].update(digest="00" * 32)),
    "a file more": lambda b: payload(b, lambda p: p["predicate"]["resources"].append(p["predicate"]["resources"][0])),
    "a file less": lambda b: payload(b, lambda p: p["predicate"]["resources"].pop()),
    "what is ignored": lambda b: payload(b, lambda p: p["predicate"]["serialization"].update(ignore_paths=["."])),
    "the algorithm": lambda b: payload(b, lambda p: p["predicate"]["serialization"].update(hash_type="md5")),
    "the type": lambda b: b["dsseEnvelope"].update(payloadType="text/plain"),
    "no signature": lambda b: b["dsseEnvelope"].update(signatures=[]),
    "an empty signature": lambda b: b["dsseEnvelope"]["signatures"][0].update(sig=""),
    "no envelope": lambda b: b.pop("dsseEnvelope"),
    "no material": lambda b: b.pop("verificationMaterial"),
    "the media type": lambda b: b.update(mediaType="text/plain"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_signature_that_was_altered_is_none(
    tmp_path: Path, key: KeyPair, model: Path, change: Callable[[dict[str, Any]], object]
) -> None:
    """Whatever of it is changed: nothing is believed before it is verified."""
    signature = altered(sign_model(model, key, tmp_path / "model.sig"), change)

    with pytest.raises(SignatureError, match="not valid"):
        SignatureVerifier(TrustPolicy(public_key=key.public)).verify_bundle(signature, "it")


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"dsseEnvelope": 1}', b"-----BEGIN"]
)
def test_what_is_no_signature_is_said_to_be_none(tmp_path: Path, key: KeyPair, content: bytes) -> None:
    """Whatever somebody put there."""
    (tmp_path / "model.sig").write_bytes(content)

    with pytest.raises(SignatureError, match="not valid"):
        SignatureVerifier(TrustPolicy(public_key=key.public)).verify_bundle(tmp_path / "model.sig", "it")


def test_a_hint_about_the_key_is_not_needed_and_not_believed(
    tmp_path: Path, key: KeyPair, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Older signatures have none: the library then prints advice, which must not get among the data."""
    signature = altered(
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
def test_signatures_of_other_digests_are_refused_by_name(
    tmp_path: Path, key: KeyPair, model: Path, hashing: model_signing.hashing.Config
) -> None:
    """The library can make them, its command cannot; shards leave empty files out."""
    signer = model_signing.signing.Config().use_elliptic_key_signer(private_key=key.private)
    signer.set_hashing_config(hashing).sign(model, tmp_path / "model.sig")

    with pytest.raises(SignatureError, match=r"is of (sha256-sharded-4|blake3) and (shards|files), not of whole files"):
        SignatureVerifier(TrustPolicy(public_key=key.public)).verify_bundle(tmp_path / "model.sig", "it")


@pytest.mark.parametrize("kind", ["rsa", "ed25519", "k256"])
def test_keys_of_another_kind_are_refused_at_once(tmp_path: Path, kind: str) -> None:
    """The format has three curves."""
    other = make_key_pair(tmp_path, kind=kind)

    with pytest.raises(ConfigError, match=r"key.pub is not a public key \(PEM, on the elliptic curve P-256"):
        SignatureVerifier(TrustPolicy(public_key=other.public))
    with pytest.raises(ConfigError, match=r"key.pem is not a private key \(PEM, on the elliptic curve P-256"):
        ModelSigner(SigningKey(other.private, ""))


@pytest.mark.parametrize("content", [b"", b"garbage", b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"])
def test_files_that_are_no_keys_are_refused_at_once(tmp_path: Path, content: bytes) -> None:
    """Each by its name, with what it should be."""
    file = tmp_path / "file.pem"
    file.write_bytes(content)

    for trust, wanted in (
        (TrustPolicy(public_key=file), "a public key"),
        (TrustPolicy(certificate_chain=(file,)), "a chain of certificates"),
        (
            TrustPolicy(identity="a@b.c", identity_provider="https://d.e", trust_config=file),
            "a client trust configuration",
        ),
    ):
        with pytest.raises(ConfigError, match=f"file.pem is not {wanted}"):
            SignatureVerifier(trust)
    with pytest.raises(ConfigError, match=r"file.pem is not a private key"):
        ModelSigner(SigningKey(file, ""))


def test_a_private_key_is_no_public_one(tmp_path: Path, key: KeyPair) -> None:
    """It must not lie about where models are pulled; the hint says how to get the public one."""
    with pytest.raises(ConfigError, match="is not a public key") as caught:
        SignatureVerifier(TrustPolicy(public_key=key.private))

    assert "openssl pkey" in caught.value.hint


@pytest.mark.parametrize(("locked", "given"), [("s3cret", ""), ("s3cret", "wr0ng"), ("", "s3cret")])
def test_a_wrong_password_is_a_config_error_without_it(tmp_path: Path, locked: str, given: str) -> None:
    """None, another, or one too many; the message does not repeat it."""
    own = make_key_pair(tmp_path, password=locked)

    with pytest.raises(ConfigError, match="assword") as caught:
        ModelSigner(SigningKey(own.private, given))

    assert not {"s3cret", "wr0ng"} & {*caught.value.message.split(), *caught.value.hint.split()}
    assert "MODELFETCH_PRIVATE_KEY_PASSWORD" in caught.value.hint


@pytest.mark.parametrize("name", ["nowhere.pem", "."])
def test_files_that_cannot_be_read_are_config_errors(tmp_path: Path, name: str) -> None:
    """Not there, or a directory."""
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


def test_the_receipt_tells_signers_apart(tmp_path: Path, key: KeyPair) -> None:
    """By the content of the files, not by their names; an identity by itself."""
    other = make_key_pair(tmp_path, "other")
    copy = tmp_path / "copy.pub"
    copy.write_bytes(key.public.read_bytes())

    assert TrustPolicy(public_key=key.public).signer == TrustPolicy(public_key=copy).signer
    assert TrustPolicy(public_key=key.public).signer == f"public key sha256:{sha256_hex(key.public.read_bytes())}"
    assert TrustPolicy(public_key=key.public).signer != TrustPolicy(public_key=other.public).signer
    assert TrustPolicy(identity="a@b.c", identity_provider="https://d.e").signer == "a@b.c by https://d.e"
    assert TrustPolicy(certificate_chain=(copy, other.public)).signer != TrustPolicy(certificate_chain=(copy,)).signer


def test_an_identity_is_believed_if_its_provider_vouches_for_it(tmp_path: Path, key: KeyPair, model: Path) -> None:
    """By the certificates and logs of a Sigstore instance whose trust configuration is given: nothing is fetched."""
    sigstore = LocalSigstore()
    signature = sigstore.sign_bundle(
        sign_model(model, key, tmp_path / "model.sig"), "me@example.org", "https://login.example.org"
    )
    ours, other = (
        sigstore.write_trust_config(tmp_path / "ours.json"),
        LocalSigstore().write_trust_config(tmp_path / "other.json"),
    )

    def signed(identity: str, provider: str, trust_config: Path) -> dict[str, str]:
        trust = TrustPolicy(identity=identity, identity_provider=provider, trust_config=trust_config)
        return SignatureVerifier(trust).verify_bundle(signature, "it")

    assert signed("me@example.org", "https://login.example.org", ours) == DIGESTS
    for identity, provider, trust_config in (
        ("you@example.org", "https://login.example.org", ours),
        ("me@example.org", "https://evil.example.org", ours),
        ("me@example.org", "https://login.example.org", other),
    ):
        with pytest.raises(SignatureError, match=f"not valid for {identity} by {provider}"):
            signed(identity, provider, trust_config)


@pytest.mark.parametrize("change", [*CHANGES][:6])
def test_what_an_identity_signed_cannot_be_altered_either(
    tmp_path: Path, key: KeyPair, model: Path, change: str
) -> None:
    """The log has it too."""
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
        SignatureVerifier(trust).verify_bundle(altered(signature, CHANGES[change]), "it")


def test_a_trust_root_that_cannot_be_fetched_may_be_there_later(
    tmp_path: Path, key: KeyPair, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sigstore's is asked for only when there is a signature to verify; the message names what cannot be reached."""
    signature = sign_model(model, key, tmp_path / "model.sig")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    judge = SignatureVerifier(TrustPolicy(identity="a@b.c", identity_provider="https://d.e"))

    with pytest.raises(TransientError, match=r"cannot be fetched: .*sigstore\.dev") as caught:
        judge.verify_bundle(signature, "it")

    assert "--trust-config" in caught.value.hint


def test_a_trust_root_that_cannot_be_kept_is_a_config_error(
    tmp_path: Path, key: KeyPair, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read-only root file system has no room for it."""
    signature = sign_model(model, key, tmp_path / "model.sig")
    monkeypatch.setenv("XDG_CACHE_HOME", str(signature))
    monkeypatch.setenv("XDG_DATA_HOME", str(signature))

    with pytest.raises(ConfigError, match="cannot be kept on disk") as caught:
        SignatureVerifier(TrustPolicy(identity="a@b.c", identity_provider="https://d.e")).verify_bundle(signature, "it")

    assert "XDG_CACHE_HOME" in caught.value.hint


@pytest.mark.process
def test_without_the_extra_the_error_says_what_to_install(tmp_path: Path, key: KeyPair) -> None:
    """In an interpreter that has the fetcher's dependencies only; and nothing of it is loaded until it is needed."""
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
