"""Pull with signature verification: publishes exactly the signed files; on local files, with the same rules for all."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modelfetch.errors import BudgetError, SignatureError, UnsafeNameError, WrongBytesError
from modelfetch.progress import SilentProgress
from modelfetch.provenance.model_signing import SignatureVerifier, TrustPolicy
from modelfetch.provenance.signature_check import check_signed_files
from modelfetch.pull.options import PullOptions
from modelfetch.pull.pull import pull
from modelfetch.sources import SourceOptions, parse_uri
from modelfetch.volume.receipt import Receipt
from testkit.file_tree import RECEIPT_NAME, STAGING_NAME, pack_tar, random_bytes, read_files, sha256_hex, write_files
from testkit.signing_keys import KeyPair, make_key_pair, sign_model

FILES = {"config.json": b"{}", "empty": b"", "w/1.bin": random_bytes(70_000, 1), "w/2.bin": random_bytes(70_000, 2)}
SUMS = {path: sha256_hex(data) for path, data in FILES.items()}
OLD = {"old.bin": b"the model of before"}


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> KeyPair:
    """Return the key pair of the trusted signer."""
    return make_key_pair(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def verifier(key: KeyPair) -> SignatureVerifier:
    """Return a verifier that trusts the key."""
    return SignatureVerifier(TrustPolicy(public_key=key.public))


@pytest.fixture
def model(tmp_path: Path, key: KeyPair) -> Path:
    """Return a signed model directory with four files."""
    sign_model(write_files(tmp_path / "model", FILES), key, tmp_path / "model/model.sig")
    return tmp_path / "model"


@pytest.fixture
def dest(tmp_path: Path) -> Path:
    """Return a destination with an earlier model."""
    pull_model(write_files(tmp_path / "old", OLD), tmp_path / "dest")
    return tmp_path / "dest"


def pull_model(source: Path, dest: Path, verifier: SignatureVerifier | None = None, **options: Any) -> Receipt:
    """Pull a model in this process."""
    return pull(
        parse_uri(str(source)),
        str(dest),
        SourceOptions(),
        PullOptions(retries=1, verifier=verifier, **options),
        SilentProgress(),
    )


def select_every_path(_: str) -> bool:
    """Select every path: each signed file must exist."""
    return True


def list_forms(digests: dict[str, str]) -> dict[str, list[str]]:
    """Return each file's sha256 as the only form received; none for an unknown sha256."""
    return {path: [sha256] if sha256 else [] for path, sha256 in digests.items()}


def make_signed_archive(tmp_path: Path, key: KeyPair, content: bytes, name: str = "model.tar") -> Path:
    """Write an archive with its sidecar signature; return the archive's path."""
    archive = write_files(tmp_path / "packed", {name: content}) / name
    sign_model(archive, key, archive.with_name(f"{name}.sig"))
    return archive


def check_refusal(error: pytest.ExceptionInfo[SignatureError], dest: Path) -> str:
    """Check that the destination still holds the earlier model; return the error's message."""
    assert read_files(dest) == OLD
    assert error.value.code == 65
    return error.value.message


def test_signed_model_is_published_with_its_signature(
    model: Path, dest: Path, verifier: SignatureVerifier, key: KeyPair
) -> None:
    """The receipt records the check and the signer; the published signature can be verified again."""
    receipt = pull_model(model, dest, verifier)

    assert read_files(dest) == FILES | {"model.sig": (model / "model.sig").read_bytes()}
    assert "signature" in receipt.checks
    assert receipt.signer == f"public key sha256:{sha256_hex(key.public.read_bytes())}"
    assert json.loads((dest / RECEIPT_NAME).read_text())["signer"] == receipt.signer


def test_signature_is_an_ordinary_file_without_a_verifier(model: Path, dest: Path) -> None:
    """Without verification, the receipt mentions no signature and no signer."""
    receipt = pull_model(model, dest)

    assert "model.sig" in read_files(dest)
    assert "signature" not in receipt.checks
    assert "signer" not in json.loads((dest / RECEIPT_NAME).read_text())


CHANGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "altered": (lambda m: (m / "w/2.bin").write_bytes(random_bytes(70_000, 3)), "w/2.bin': signed was sha256"),
    "cut": (lambda m: (m / "w/2.bin").write_bytes(b""), "w/2.bin': signed was sha256"),
    "empty no more": (lambda m: (m / "empty").write_bytes(b"1"), "empty': signed was sha256"),
    "missing": (lambda m: (m / "w/1.bin").unlink(), "'w/1.bin' is missing"),
    "renamed": (lambda m: (m / "w/1.bin").rename(m / "w/3.bin"), "'w/3.bin' is not signed; 'w/1.bin' is missing"),
    "a file more": (lambda m: (m / "evil.py").write_bytes(b"import os"), "'evil.py' is not signed"),
    "an empty file more": (lambda m: (m / "__init__.py").touch(), "'__init__.py' is not signed"),
    "a file of git's": (lambda m: (m / ".gitattributes").write_bytes(b"*"), "'.gitattributes' is not signed"),
    "a hook of git's": (lambda m: write_files(m, {".git/hooks/x": b""}), "'.git/hooks/x' is not signed"),
    "another model.sig": (lambda m: write_files(m, {"w/model.sig": b""}), "'w/model.sig' is not signed"),
    "swapped": (
        lambda m: [(m / f"w/{one}.bin").write_bytes(FILES[f"w/{other}.bin"]) for one, other in ((1, 2), (2, 1))],
        "w/2.bin': signed was sha256",
    ),
}


@pytest.mark.parametrize(("change", "expected"), CHANGES.values(), ids=CHANGES)
def test_model_changed_after_signing_is_refused(
    model: Path, dest: Path, verifier: SignatureVerifier, change: Callable[[Path], object], expected: str
) -> None:
    """The message names the changed file; the earlier model stays."""
    change(model)

    with pytest.raises(SignatureError) as caught:
        pull_model(model, dest, verifier)

    assert expected in check_refusal(caught, dest)


def test_every_altered_file_is_named(model: Path, dest: Path, verifier: SignatureVerifier) -> None:
    """The message names every altered file, and no other file."""
    for name in ("config.json", "w/1.bin"):
        (model / name).write_bytes(b"?")

    with pytest.raises(SignatureError) as caught:
        pull_model(model, dest, verifier)

    message = check_refusal(caught, dest)
    assert all(name in message for name in ("config.json", "w/1.bin"))
    assert "w/2.bin" not in message


def test_damage_found_by_the_signature_is_removed_from_the_staging_area(
    model: Path, dest: Path, verifier: SignatureVerifier
) -> None:
    """After damage from a source without checksums, the next pull fetches every byte again."""
    (model / "w/1.bin").write_bytes(b"?")
    with pytest.raises(SignatureError):
        pull_model(model, dest, verifier)

    (model / "w/1.bin").write_bytes(FILES["w/1.bin"])
    receipt = pull_model(model, dest, verifier)

    assert (receipt.resumed_bytes, read_files(dest).items() >= FILES.items()) == (0, True)
    assert not (dest.parent / STAGING_NAME).exists()


SIGNATURES: dict[str, tuple[Callable[[Path, KeyPair], object], str]] = {
    "none": (lambda m, _: (m / "model.sig").unlink(), "is not signed: there is no "),
    "an empty one": (lambda m, _: (m / "model.sig").write_bytes(b""), "is not valid for public key sha256:"),
    "garbage": (lambda m, _: (m / "model.sig").write_bytes(random_bytes(5000)), "is not valid for public key sha256:"),
    "by another key": (lambda m, other: sign_model(m, other, m / "model.sig"), "is not valid for public key sha256:"),
    "of a single file": (
        lambda m, _: (m / "model.sig").write_bytes((m.parent / "single.sig").read_bytes()),
        "'config.json' is not signed",
    ),
    "of another model": (
        lambda m, _: (m / "model.sig").write_bytes((m.parent / "other.sig").read_bytes()),
        "'config.json' is not signed",
    ),
}


@pytest.mark.parametrize(("change", "expected"), SIGNATURES.values(), ids=SIGNATURES)
def test_model_without_a_valid_signature_is_not_fetched(
    model: Path,
    dest: Path,
    key: KeyPair,
    verifier: SignatureVerifier,
    change: Callable[[Path, KeyPair], object],
    expected: str,
) -> None:
    """The signature is checked first: an invalid signature stops the pull before the model's first byte."""
    sign_model(model / "config.json", key, model.parent / "single.sig")
    sign_model(write_files(model.parent / "other", OLD), key, model.parent / "other.sig")
    change(model, make_key_pair(model.parent, "foreign"))

    with pytest.raises(SignatureError) as caught:
        pull_model(model, dest, verifier, max_bytes=1_000_000)

    assert expected in check_refusal(caught, dest)
    assert not (dest.parent / STAGING_NAME).exists()


def test_too_large_signature_is_refused_unread(
    model: Path, dest: Path, verifier: SignatureVerifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signature over the limit is refused before any byte fills the memory."""
    monkeypatch.setattr("modelfetch.provenance.signature_check.MAX_SIGNATURE_BYTES", 100)

    with pytest.raises(WrongBytesError, match="more than 100 bytes"):
        pull_model(model, dest, verifier)

    assert read_files(dest) == OLD


@pytest.mark.parametrize(
    ("options", "left"),
    [
        ({"include": ("w/*",)}, {"w/1.bin", "w/2.bin"}),
        ({"exclude": ("*.bin",)}, {"config.json", "empty", "model.sig"}),
        ({"exclude": ("model.sig", "empty")}, {"config.json", "w/1.bin", "w/2.bin"}),
    ],
)
def test_selected_part_of_a_signed_model_is_verified(
    model: Path, dest: Path, verifier: SignatureVerifier, options: dict[str, Any], left: set[str]
) -> None:
    """The signature is read, selected by the globs or not; each selected file must be signed."""
    receipt = pull_model(model, dest, verifier, **options)
    assert {f.path for f in receipt.files} == left
    assert "signature" in receipt.checks

    (model / next(iter(left & set(FILES)))).write_bytes(b"?")
    with pytest.raises(SignatureError, match="is not what was signed"):
        pull_model(model, dest, verifier, **options)


def test_unsigned_files_can_be_excluded(model: Path, dest: Path, verifier: SignatureVerifier) -> None:
    """Unsigned files, such as git's, are accepted at the source if the globs exclude them."""
    write_files(model, {".gitattributes": b"*", ".git/config": b""})

    receipt = pull_model(model, dest, verifier, exclude=(".git*",))

    assert {f.path for f in receipt.files} == {*FILES, "model.sig"}


def test_files_ignored_by_the_signer_must_be_excluded(
    model: Path, dest: Path, key: KeyPair, verifier: SignatureVerifier
) -> None:
    """An ignored directory could hold foreign files: the pull is refused unless the globs exclude the directory."""
    sign_model(model, key, model / "model.sig", ignored=("w",))

    with pytest.raises(SignatureError) as caught:
        pull_model(model, dest, verifier)
    assert "'w/1.bin' is not signed; 'w/2.bin' is not signed." in check_refusal(caught, dest)

    assert {f.path for f in pull_model(model, dest, verifier, exclude=("w/*",)).files} == {
        "config.json",
        "empty",
        "model.sig",
    }


def test_signature_that_lists_a_receipt_is_refused_unless_excluded(
    model: Path, tmp_path: Path, dest: Path, key: KeyPair, verifier: SignatureVerifier
) -> None:
    """A directory signed after a pull: the earlier receipt is in the signed list, and is left out of the model."""
    pull_model(model, tmp_path / "between")
    sign_model(tmp_path / "between", key, tmp_path / "between/model.sig")

    with pytest.raises(UnsafeNameError, match=r"model\.sig lists '\.modelfetch-receipt'") as refused:
        pull_model(tmp_path / "between", dest, verifier)

    assert "--exclude" in refused.value.hint
    assert "signature" in pull_model(tmp_path / "between", dest, verifier, exclude=[".modelfetch-*"]).checks


def test_single_file_is_verified_by_its_sidecar_signature(
    model: Path, tmp_path: Path, key: KeyPair, verifier: SignatureVerifier
) -> None:
    """Verification ignores file names; a missing signature, or a directory's, is refused."""
    file = model / "w/1.bin"
    with pytest.raises(SignatureError, match=r"is not signed: there is no .*/w/1\.bin\.sig"):
        pull_model(file, tmp_path / "a.bin", verifier)

    file.with_name("1.bin.sig").write_bytes((model / "model.sig").read_bytes())
    with pytest.raises(SignatureError, match=r"1\.bin\.sig is of a directory, not of one file"):
        pull_model(file, tmp_path / "a.bin", verifier)

    sign_model(file, key, file.with_name("1.bin.sig"))
    receipt = pull_model(file, tmp_path / "a.bin", verifier)
    assert (tmp_path / "a.bin").read_bytes() == FILES["w/1.bin"]
    assert (receipt.checks[-1], receipt.signer) == ("signature", verifier.signer)

    file.write_bytes(b"?")
    with pytest.raises(SignatureError, match="is not what was signed"):
        pull_model(file, tmp_path / "a.bin", verifier)
    assert (tmp_path / "a.bin").read_bytes() == FILES["w/1.bin"]


def test_signed_archive_is_extracted_after_verification(
    tmp_path: Path, dest: Path, key: KeyPair, verifier: SignatureVerifier
) -> None:
    """The archive is verified as a file; its members need no signature."""
    archive = make_signed_archive(tmp_path, key, pack_tar(FILES))

    receipt = pull_model(archive, dest, verifier)

    assert read_files(dest) == FILES
    assert "signature" in receipt.checks
    assert receipt.archive is not None
    assert not (dest.parent / STAGING_NAME).exists()


def test_archive_is_verified_without_extraction(tmp_path: Path, key: KeyPair, verifier: SignatureVerifier) -> None:
    """With `--no-extract`, the archive is verified and published as a file."""
    archive = make_signed_archive(tmp_path, key, pack_tar(FILES))

    assert "signature" in pull_model(archive, tmp_path / "kept.tar", verifier, extract=False).checks
    assert (tmp_path / "kept.tar").read_bytes() == archive.read_bytes()


@pytest.mark.parametrize("name", ["model.tar", "model.tar.gz"])
def test_archive_changed_after_signing_is_not_extracted(
    tmp_path: Path, dest: Path, key: KeyPair, verifier: SignatureVerifier, name: str
) -> None:
    """Members that would make extraction fail are never read: the signature is compared first."""
    archive = make_signed_archive(tmp_path, key, pack_tar(FILES), name)
    bomb = pack_tar({"../evil": b"", "big": bytes(10_000_000)})
    archive.write_bytes(gzip.compress(bomb) if name.endswith("gz") else bomb)

    with pytest.raises(SignatureError) as caught:
        pull_model(archive, dest, verifier, max_bytes=50_000_000)

    assert "signed was sha256" in check_refusal(caught, dest)
    assert not (dest.parent / "evil").exists()


def test_signed_archive_is_vetted_like_any_archive(
    tmp_path: Path, dest: Path, key: KeyPair, verifier: SignatureVerifier
) -> None:
    """Names and sizes of the members are checked as in an unsigned archive."""
    hostile = make_signed_archive(tmp_path, key, pack_tar({"../evil": b""}))
    with pytest.raises(WrongBytesError, match=r"\.\."):
        pull_model(hostile, dest, verifier)

    bomb = make_signed_archive(tmp_path, key, gzip.compress(pack_tar({"big": bytes(10_000_000)})), "b.tar.gz")
    with pytest.raises(BudgetError):
        pull_model(bomb, dest, verifier, max_bytes=1_000_000)
    assert read_files(dest) == OLD


def test_unverified_model_is_pulled_again_for_verification(
    model: Path, dest: Path, verifier: SignatureVerifier
) -> None:
    """An unverified model at the destination is pulled again; a verified model is up to date."""
    first = pull_model(model, dest)
    second = pull_model(model, dest, verifier)
    third = pull_model(model, dest, verifier)

    assert [("signature" in one.checks) for one in (first, second, third)] == [False, True, True]
    assert third == second
    assert pull_model(model, dest) == second


def test_model_of_another_signer_is_verified_again(
    model: Path, dest: Path, verifier: SignatureVerifier, tmp_path: Path
) -> None:
    """With another trusted key, the same version is verified again, and refused if that key did not sign."""
    first = pull_model(model, dest, verifier)
    other = SignatureVerifier(TrustPolicy(public_key=make_key_pair(tmp_path, "other").public))

    with pytest.raises(SignatureError, match="not valid"):
        pull_model(model, dest, other)

    assert json.loads((dest / RECEIPT_NAME).read_text())["signer"] == first.signer


def test_verified_model_altered_at_the_destination_is_pulled_again(
    model: Path, dest: Path, verifier: SignatureVerifier
) -> None:
    """A changed size or time, or `--recheck`, leads to a new pull, as without a signature."""
    receipt = pull_model(model, dest, verifier)
    (dest / "config.json").write_bytes(b"[]")

    again = pull_model(model, dest, verifier)

    assert (dest / "config.json").read_bytes() == FILES["config.json"]
    assert again.digest == receipt.digest


def test_pin_and_signature_are_both_checked(
    model: Path, tmp_path: Path, key: KeyPair, verifier: SignatureVerifier
) -> None:
    """A file must match the pin and the signature."""
    file = model / "w/1.bin"
    sign_model(file, key, file.with_name("1.bin.sig"))

    receipt = pull_model(file, tmp_path / "a.bin", verifier, sha256=sha256_hex(FILES["w/1.bin"]))

    assert {"pin", "signature"} <= {*receipt.checks}
    with pytest.raises(WrongBytesError, match="not the pinned model"):
        pull_model(file, tmp_path / "b.bin", verifier, sha256="00" * 32)


def test_every_difference_is_named() -> None:
    """One message names altered, missing and unsigned files; files with an unknown sha256 are not compared."""
    received = {"w/1.bin": "00" * 32, "empty": "", "w/2.bin": SUMS["w/2.bin"], "evil.py": "ab" * 32}

    with pytest.raises(SignatureError) as caught:
        check_signed_files("s3://b/m/", SUMS, list_forms(received), select_every_path)

    assert caught.value.message == (
        "s3://b/m/ is not what was signed: 'evil.py' is not signed; 'config.json' is missing;"
        f" 'w/1.bin': signed was sha256 {SUMS['w/1.bin']}, got {'00' * 32}."
    )


def test_signature_error_lists_twenty_differences() -> None:
    """The message lists the first twenty differences and counts the others."""
    with pytest.raises(SignatureError, match=r"^it is .*; 'f029' is not signed and 80 more\.$"):
        check_signed_files("it", {}, {f"f{n:03}": [] for n in range(10, 110)}, select_every_path)


def test_unselected_signed_file_may_be_missing() -> None:
    """A signed file outside the globs may be missing; an existing file must be signed."""
    received = {"w/1.bin": [SUMS["w/1.bin"]]}

    check_signed_files("it", SUMS, received, lambda path: path == "w/1.bin")

    with pytest.raises(SignatureError, match="'b' is not signed"):
        check_signed_files("it", SUMS, {**received, "b": []}, lambda _: False)


def test_gzip_encoded_object_may_be_signed_in_either_form() -> None:
    """The signed sha256 may be of the compressed or of the decompressed bytes."""
    check_signed_files("it", {"a": "ab" * 32}, {"a": ["cd" * 32, "ab" * 32]}, select_every_path)

    with pytest.raises(SignatureError, match=f"got {'cd' * 32} or {'ef' * 32}"):
        check_signed_files("it", {"a": "ab" * 32}, {"a": ["cd" * 32, "ef" * 32]}, select_every_path)
