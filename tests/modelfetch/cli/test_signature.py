"""Signatures by `push --sign` or other tools, verified before publishing; real stores, real keys."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from testkit.cli_runner import CliRunner, Run
from testkit.fault_proxy import FaultProxy
from testkit.file_tree import MANIFEST_NAME, STAGING_NAME, pack_tar, random_bytes, read_files, write_files
from testkit.https_server import HttpsServer
from testkit.signing_keys import KeyPair, make_certified_key, make_key_pair, sign_model, verify_model
from testkit.sigstore import LocalSigstore
from testkit.stores import GCSBucket, ModelFolder, S3Bucket, Store

Proxied = Callable[[str], FaultProxy]
FILES = {"config.json": b"{}", "empty": b"", "w/1.bin": random_bytes(70_000, 1)}
NOWHERE = {"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9", "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
ME, PROVIDER = "me@example.org", "https://login.example.org"


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> KeyPair:
    """Return the trusted key pair."""
    return make_key_pair(tmp_path_factory.mktemp("keys"))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Return a directory of a few files, one file behind a symlink."""
    write_files(tmp_path / "model", {name: data for name, data in FILES.items() if name != "w/1.bin"})
    (tmp_path / "model/w").symlink_to(write_files(tmp_path / "elsewhere", {"1.bin": FILES["w/1.bin"]}))
    return tmp_path / "model"


def verify_flags(key: KeyPair) -> tuple[str, ...]:
    """Return the flags of a pull that trusts a key."""
    return ("--verify-signature", "--public-key", str(key.public), "--output", "json")


def sign_flags(key: KeyPair) -> tuple[str, ...]:
    """Return the flags of a push that signs with a key."""
    return ("--sign", "--private-key", str(key.private))


def upload_files(store: Store, prefix: str, model: Path) -> None:
    """Store a directory's files in a bucket, as any tool would."""
    for name, data in read_files(model).items():
        store.put(prefix + name, data)


def assert_failed(run: Run, code: int, reason: str, *words: str) -> None:
    """Check exit code, reason, words of message and hint, termination log and empty stdout."""
    assert (run.code, run.error["reason"], run.stdout) == (code, reason, ""), run.stderr
    assert run.error["hint"]
    assert [word for word in words if word not in run.error["message"] + run.error["hint"]] == []
    assert json.loads(run.termination)["reason"] == reason


def test_signed_push_is_verified_by_pull_and_by_model_signing(
    modelfetch: CliRunner, store: Store, model: Path, key: KeyPair, tmp_path: Path
) -> None:
    """The signature is one of the model's files, the manifest's last; a second pull changes nothing."""
    pushed = modelfetch.ok("push", model, store.uri("m/"), *sign_flags(key), "-o", "json", env=store.env)
    pull = ("pull", store.uri("m/"), tmp_path / "dest", *verify_flags(key), "--require-manifest")
    first = modelfetch.ok(*pull, env=store.env)

    listed = [f["path"] for f in json.loads(store.get(f"m/{MANIFEST_NAME}"))["files"]]
    assert listed == ["config.json", "empty", "w/1.bin", "model.sig"]
    assert read_files(tmp_path / "dest") == FILES | {"model.sig": store.get("m/model.sig")}
    assert {"manifest", "signature"} <= {*first.receipt["checks"]}
    assert first.receipt["signer"].startswith("public key sha256:")
    assert first.receipt["digest"] == f"sha256:{pushed.receipt['sha256']}"
    verify_model(tmp_path / "dest", key, tmp_path / "dest/model.sig")
    if store.scheme == "s3":
        assert modelfetch.ok(*pull, env=store.env).receipt == first.receipt


@pytest.mark.parametrize(("target", "local"), [("m.bin", "config.json"), ("m.tar.zst", ".")])
def test_signature_of_an_object_is_a_sidecar_object(
    modelfetch: CliRunner, s3_bucket: S3Bucket, model: Path, key: KeyPair, tmp_path: Path, target: str, local: str
) -> None:
    """For a file and for an archive; other tools verify the archive as a file."""
    modelfetch.ok("push", model / local, s3_bucket.uri(target), *sign_flags(key), env=s3_bucket.env)
    run = modelfetch.ok("pull", s3_bucket.uri(target), f"{tmp_path}/dest/", *verify_flags(key), env=s3_bucket.env)

    assert s3_bucket.list_keys() == [target, f"{target}{MANIFEST_NAME}", f"{target}.sig"]
    assert {"manifest", "signature"} <= {*run.receipt["checks"]}
    assert read_files(tmp_path / "dest") == ({"m.bin": FILES["config.json"]} if target == "m.bin" else FILES)
    both = write_files(tmp_path / "both", {name: s3_bucket.get(name) for name in (target, f"{target}.sig")})
    verify_model(both / target, key, both / f"{target}.sig")


def test_model_signed_and_uploaded_by_other_tools_is_verified(
    modelfetch: CliRunner, gcs_bucket: GCSBucket, key: KeyPair, tmp_path: Path
) -> None:
    """Signed like the model_signing command, uploaded by any tool."""
    model = write_files(tmp_path / "model", FILES)
    sign_model(model, key, model / "model.sig")
    upload_files(gcs_bucket, "m/", model)

    run = modelfetch.ok("pull", gcs_bucket.uri("m"), tmp_path / "dest", *verify_flags(key), env=gcs_bucket.env)

    assert read_files(tmp_path / "dest") == read_files(model)
    assert run.receipt["checks"][-1] == "signature"


def test_signature_by_another_key_is_refused_before_fetching_the_model(
    modelfetch: CliRunner, s3_bucket: S3Bucket, key: KeyPair, tmp_path: Path, fault_proxy: Proxied
) -> None:
    """Only the signature is requested, and the old model stays."""
    model = write_files(tmp_path / "model", FILES)
    sign_model(model, make_key_pair(tmp_path, "other"), model / "model.sig")
    upload_files(s3_bucket, "m/", model)
    old = write_files(tmp_path / "old", {"old.bin": b"1"})
    modelfetch.ok("pull", old, tmp_path / "dest")
    proxy = fault_proxy(s3_bucket.endpoint)

    run = modelfetch(
        "pull", s3_bucket.uri("m/"), tmp_path / "dest", *verify_flags(key), env=s3_bucket.env_at(proxy.url)
    )

    assert_failed(run, 65, "signature", "is not valid for public key", "Somebody else signed it")
    assert (
        len(proxy.matching_requests(**s3_bucket.download_filter()))
        == len(proxy.matching_requests(**s3_bucket.download_filter("m/model.sig")))
        == 1
    )
    assert read_files(tmp_path / "dest") == {"old.bin": b"1"}


def test_file_replaced_after_signing_is_not_published(
    modelfetch: CliRunner, s3_bucket: S3Bucket, model: Path, key: KeyPair, tmp_path: Path
) -> None:
    """An attacker with write access can replace a file and the manifest, but not the signature."""
    modelfetch.ok("push", model, s3_bucket.uri("m/"), *sign_flags(key), env=s3_bucket.env)
    s3_bucket.put("m/w/1.bin", random_bytes(70_000, 2))
    s3_bucket.delete(f"m/{MANIFEST_NAME}")

    run = modelfetch("pull", s3_bucket.uri("m/"), tmp_path / "dest", *verify_flags(key), env=s3_bucket.env)

    assert_failed(run, 65, "signature", "m/w/1.bin': signed was sha256 ", "--exclude")
    assert list(tmp_path.glob("dest*")) + list(tmp_path.glob(STAGING_NAME)) == []


def test_unsigned_object_exits_65_when_variables_require_a_signature(
    modelfetch: CliRunner, s3_bucket: S3Bucket, key: KeyPair, tmp_path: Path
) -> None:
    """Variables of a ConfigMap suffice; the hint says how to sign."""
    s3_bucket.put("m.bin", b"1")
    env = {"MODELFETCH_VERIFY_SIGNATURE": "true", "MODELFETCH_PUBLIC_KEY": str(key.public)}

    run = modelfetch("pull", s3_bucket.uri("m.bin"), tmp_path / "dest", env=s3_bucket.env | env)

    assert_failed(run, 65, "signature", "is not signed: there is no m.bin.sig", "modelfetch push --sign")


def test_push_sign_replaces_an_uploaded_signature(
    modelfetch: CliRunner, s3_bucket: S3Bucket, model: Path, key: KeyPair, tmp_path: Path
) -> None:
    """Without --sign, a local model.sig is pushed unchanged; the local file always stays."""
    (model / "model.sig").write_bytes(b"of before")
    modelfetch.ok("push", model, s3_bucket.uri("m/"), env=s3_bucket.env)
    assert s3_bucket.get("m/model.sig") == b"of before"

    modelfetch.ok("push", model, s3_bucket.uri("m/"), *sign_flags(key), env=s3_bucket.env)

    assert (model / "model.sig").read_bytes() == b"of before"
    run = modelfetch.ok("pull", s3_bucket.uri("m"), tmp_path / "dest", *verify_flags(key), env=s3_bucket.env)
    assert "signature" in run.receipt["checks"]


def test_private_key_password_comes_from_the_environment(
    modelfetch: CliRunner, s3_bucket: S3Bucket, tmp_path: Path
) -> None:
    """The password appears in no output; a wrong password fails before any upload."""
    own = make_key_pair(tmp_path, password="s3cret-words")
    (tmp_path / "m.bin").write_bytes(b"1")
    push = ("push", tmp_path / "m.bin", s3_bucket.uri(), *sign_flags(own), "--debug", "--log-level", "debug")

    wrong = modelfetch(*push, env=s3_bucket.env | {"MODELFETCH_PRIVATE_KEY_PASSWORD": "wr0ng-words"})
    assert (wrong.code, s3_bucket.list_keys()) == (78, [])
    right = modelfetch.ok(*push, env=s3_bucket.env | {"MODELFETCH_PRIVATE_KEY_PASSWORD": "s3cret-words"})

    assert "m.bin.sig" in s3_bucket.list_keys()
    assert not [word for word in ("s3cret-words", "wr0ng-words") if word in wrong.all_output + right.all_output]


def test_gzip_encoded_gcs_archive_is_verified_after_decoding(
    modelfetch: CliRunner, gcs_bucket: GCSBucket, key: KeyPair, tmp_path: Path
) -> None:
    """An archive compressed by the uploading tool, verified before extraction."""
    file = write_files(tmp_path, {"m.tar": pack_tar(FILES)}) / "m.tar"
    gcs_bucket.put("m.tar", gzip.compress(file.read_bytes()), content_encoding="gzip")
    gcs_bucket.put("m.tar.sig", sign_model(file, key, tmp_path / "m.tar.sig").read_bytes())

    run = modelfetch.ok("pull", gcs_bucket.uri("m.tar"), tmp_path / "dest", *verify_flags(key), env=gcs_bucket.env)

    assert read_files(tmp_path / "dest") == FILES
    assert "signature" in run.receipt["checks"]


def test_web_model_is_verified_by_the_sidecar_signature(
    modelfetch: CliRunner, https_server: HttpsServer, key: KeyPair, tmp_path: Path
) -> None:
    """The signature is read from the URL with the suffix .sig."""
    file = write_files(tmp_path, {"m.bin": FILES["w/1.bin"]}) / "m.bin"
    https_server.files["/m.bin"] = file.read_bytes()
    https_server.files["/m.bin.sig"] = sign_model(file, key, tmp_path / "m.bin.sig").read_bytes()

    run = modelfetch.ok(
        "pull", f"{https_server.url}/m.bin", tmp_path / "dest", *verify_flags(key), env=https_server.env
    )

    assert "signature" in run.receipt["checks"]
    assert (tmp_path / "dest").read_bytes() == FILES["w/1.bin"]


def test_certificate_chains_and_identities_are_accepted_as_signers(
    modelfetch: CliRunner, folder: ModelFolder, tmp_path: Path
) -> None:
    """A certificate that chains to a root; an identity certified by a Sigstore instance."""
    signer, sigstore = make_certified_key(tmp_path), LocalSigstore()
    file = write_files(folder.root, {"m.bin": b"1"}) / "m.bin"
    signature = folder.root / "m.bin.sig"
    pull = ("pull", file, tmp_path / "dest", "--verify-signature", "--output", "json")

    sign_model(file, signer, signature)
    chain = modelfetch.ok(*pull, "--certificate-chain", signer.intermediate, "--certificate-chain", signer.root)
    sigstore.sign_bundle(signature, ME, PROVIDER)
    provider = ("--identity-provider", PROVIDER, "--trust-config", sigstore.write_trust_config(tmp_path / "trust.json"))
    identity = modelfetch.ok(*pull, "--identity", ME, *provider)

    assert chain.receipt["signer"].startswith("certificate chain sha256:")
    assert identity.receipt["signer"].startswith(f"{ME} by {PROVIDER}")


def test_unreachable_sigstore_exits_75(
    modelfetch: CliRunner, folder: ModelFolder, key: KeyPair, tmp_path: Path
) -> None:
    """The message names the host of the trust root, the hint --trust-config; no traceback, no bug."""
    file = write_files(folder.root, {"m.bin": b"1"}) / "m.bin"
    sign_model(file, key, folder.root / "m.bin.sig")
    flags = ("--verify-signature", "--identity", ME, "--identity-provider", PROVIDER, "--retries", "1")

    run = modelfetch("pull", file, tmp_path / "dest", *flags, env={"HTTPS_PROXY": "http://127.0.0.1:9"})

    assert_failed(run, 75, "transient", "sigstore.dev", "--trust-config")
    assert "Traceback" not in run.stderr


@pytest.mark.parametrize(
    ("command", "flags", "variables", "code", "words"),
    [
        ("pull", ["--verify-signature"], {}, 2, "--verify-signature needs to know whose"),
        ("pull", [], {"MODELFETCH_PUBLIC_KEY": "rsa.pub"}, 78, "MODELFETCH_PUBLIC_KEY is given, but no signature"),
        ("pull", ["--verify-signature", "--public-key", "rsa.pub"], {}, 78, "rsa.pub is not a public key (PEM, on the"),
        ("push", ["--sign"], {}, 2, "--sign needs a key"),
        ("push", ["--sign", "--private-key", "nowhere.pem"], {}, 78, "nowhere.pem cannot be read"),
    ],
)
def test_invalid_signing_options_fail_before_any_request(
    modelfetch: CliRunner, model: Path, command: str, flags: list[str], variables: dict[str, str], code: int, words: str
) -> None:
    """No server listens at the store's endpoint."""
    make_key_pair(modelfetch.home, "rsa", "rsa")
    places = [model, "s3://b/m/"]

    run = modelfetch(command, *(places if command == "push" else reversed(places)), *flags, env=NOWHERE | variables)

    assert_failed(run, code, "usage" if code == 2 else "config", words)
