"""A pull that verifies publishes what was signed, all of it and nothing else; on local files, for all sources alike."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modelfetch.errors import BudgetError, SignatureError, WrongBytesError
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
    """The key that is believed."""
    return make_key_pair(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def judge(key: KeyPair) -> SignatureVerifier:
    """Whoever believes it."""
    return SignatureVerifier(TrustPolicy(public_key=key.public))


@pytest.fixture
def model(tmp_path: Path, key: KeyPair) -> Path:
    """A signed directory."""
    sign_model(write_files(tmp_path / "model", FILES), key, tmp_path / "model/model.sig")
    return tmp_path / "model"


@pytest.fixture
def dest(tmp_path: Path) -> Path:
    """Where the model goes: another one is there already."""
    pulled(write_files(tmp_path / "old", OLD), tmp_path / "dest")
    return tmp_path / "dest"


def pulled(source: Path, dest: Path, judge: SignatureVerifier | None = None, **options: Any) -> Receipt:
    """Pull in this process."""
    return pull(
        parse_uri(str(source)),
        str(dest),
        SourceOptions(),
        PullOptions(retries=1, verifier=judge, **options),
        SilentProgress(),
    )


def every(_: str) -> bool:
    """Each file must be there."""
    return True


def forms(digests: dict[str, str]) -> dict[str, list[str]]:
    """What came, each file in one form; none where it is not known yet."""
    return {path: [sha256] if sha256 else [] for path, sha256 in digests.items()}


def signed_archive(tmp_path: Path, key: KeyPair, content: bytes, name: str = "model.tar") -> Path:
    """An archive with its signature beside it."""
    archive = write_files(tmp_path / "packed", {name: content}) / name
    sign_model(archive, key, archive.with_name(f"{name}.sig"))
    return archive


def refused(error: pytest.ExceptionInfo[SignatureError], dest: Path) -> str:
    """Nothing of it was published; what the error says."""
    assert read_files(dest) == OLD
    assert error.value.code == 65
    return error.value.message


def test_what_was_signed_is_published_with_its_signature(
    model: Path, dest: Path, judge: SignatureVerifier, key: KeyPair
) -> None:
    """The receipt says that it was verified, and by whose key; others can verify it again where it is now."""
    receipt = pulled(model, dest, judge)

    assert read_files(dest) == FILES | {"model.sig": (model / "model.sig").read_bytes()}
    assert "signature" in receipt.checks
    assert receipt.signer == f"public key sha256:{sha256_hex(key.public.read_bytes())}"
    assert json.loads((dest / RECEIPT_NAME).read_text())["signer"] == receipt.signer


def test_without_a_judge_a_signature_is_a_file_like_any_other(model: Path, dest: Path) -> None:
    """And the receipt does not mention it."""
    receipt = pulled(model, dest)

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


@pytest.mark.parametrize(("change", "said"), CHANGES.values(), ids=CHANGES)
def test_what_was_changed_after_it_was_signed_is_refused(
    model: Path, dest: Path, judge: SignatureVerifier, change: Callable[[Path], object], said: str
) -> None:
    """By name; the old model stays."""
    change(model)

    with pytest.raises(SignatureError) as caught:
        pulled(model, dest, judge)

    assert said in refused(caught, dest)


def test_all_that_was_altered_is_named(model: Path, dest: Path, judge: SignatureVerifier) -> None:
    """Not the first of it only."""
    for name in ("config.json", "w/1.bin"):
        (model / name).write_bytes(b"?")

    with pytest.raises(SignatureError) as caught:
        pulled(model, dest, judge)

    said = refused(caught, dest)
    assert all(name in said for name in ("config.json", "w/1.bin"))
    assert "w/2.bin" not in said


def test_damage_that_only_the_signature_tells_does_not_stay_in_the_staging_area(
    model: Path, dest: Path, judge: SignatureVerifier
) -> None:
    """A source without checksums may have sent it: the next pull fetches all of it anew."""
    (model / "w/1.bin").write_bytes(b"?")
    with pytest.raises(SignatureError):
        pulled(model, dest, judge)

    (model / "w/1.bin").write_bytes(FILES["w/1.bin"])
    receipt = pulled(model, dest, judge)

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


@pytest.mark.parametrize(("change", "said"), SIGNATURES.values(), ids=SIGNATURES)
def test_without_the_right_signature_nothing_is_fetched(
    model: Path,
    dest: Path,
    key: KeyPair,
    judge: SignatureVerifier,
    change: Callable[[Path, KeyPair], object],
    said: str,
) -> None:
    """It is read first: what is wrong with it is known before the first byte of the model."""
    sign_model(model / "config.json", key, model.parent / "single.sig")
    sign_model(write_files(model.parent / "other", OLD), key, model.parent / "other.sig")
    change(model, make_key_pair(model.parent, "stranger"))

    with pytest.raises(SignatureError) as caught:
        pulled(model, dest, judge, max_bytes=1_000_000)

    assert said in refused(caught, dest)
    assert not (dest.parent / STAGING_NAME).exists()


def test_a_signature_that_is_too_large_is_not_read(
    model: Path, dest: Path, judge: SignatureVerifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever can write there cannot fill the memory."""
    monkeypatch.setattr("modelfetch.provenance.signature_check.MAX_SIGNATURE_BYTES", 100)

    with pytest.raises(WrongBytesError, match="more than 100 bytes"):
        pulled(model, dest, judge)

    assert read_files(dest) == OLD


@pytest.mark.parametrize(
    ("options", "left"),
    [
        ({"include": ("w/*",)}, {"w/1.bin", "w/2.bin"}),
        ({"exclude": ("*.bin",)}, {"config.json", "empty", "model.sig"}),
        ({"exclude": ("model.sig", "empty")}, {"config.json", "w/1.bin", "w/2.bin"}),
    ],
)
def test_a_part_of_a_signed_model_is_verified_as_well(
    model: Path, dest: Path, judge: SignatureVerifier, options: dict[str, Any], left: set[str]
) -> None:
    """The signature is read whether the patterns leave it or not; each file that comes must be signed."""
    receipt = pulled(model, dest, judge, **options)
    assert {f.path for f in receipt.files} == left
    assert "signature" in receipt.checks

    (model / next(iter(left & set(FILES)))).write_bytes(b"?")
    with pytest.raises(SignatureError, match="is not what was signed"):
        pulled(model, dest, judge, **options)


def test_what_is_not_signed_can_be_left_out(model: Path, dest: Path, judge: SignatureVerifier) -> None:
    """Such as what git needs: signers leave it out as a rule."""
    write_files(model, {".gitattributes": b"*", ".git/config": b""})

    receipt = pulled(model, dest, judge, exclude=(".git*",))

    assert {f.path for f in receipt.files} == {*FILES, "model.sig"}


def test_what_the_signer_ignored_must_be_left_out_too(
    model: Path, dest: Path, key: KeyPair, judge: SignatureVerifier
) -> None:
    """An ignored directory is where a stranger's files would go."""
    sign_model(model, key, model / "model.sig", ignored=("w",))

    with pytest.raises(SignatureError) as caught:
        pulled(model, dest, judge)
    assert "'w/1.bin' is not signed; 'w/2.bin' is not signed." in refused(caught, dest)

    assert {f.path for f in pulled(model, dest, judge, exclude=("w/*",)).files} == {"config.json", "empty", "model.sig"}


def test_a_directory_that_was_signed_where_it_was_pulled_can_be_pulled_on(
    model: Path, tmp_path: Path, dest: Path, key: KeyPair, judge: SignatureVerifier
) -> None:
    """Its receipt was signed along, and is no part of the model."""
    pulled(model, tmp_path / "between")
    sign_model(tmp_path / "between", key, tmp_path / "between/model.sig")

    assert "signature" in pulled(tmp_path / "between", dest, judge).checks


def test_a_single_files_signature_stands_beside_it(
    model: Path, tmp_path: Path, key: KeyPair, judge: SignatureVerifier
) -> None:
    """It is verified whatever the file is called there and here; none, or a directory's, is refused."""
    file = model / "w/1.bin"
    with pytest.raises(SignatureError, match=r"is not signed: there is no .*/w/1\.bin\.sig"):
        pulled(file, tmp_path / "a.bin", judge)

    file.with_name("1.bin.sig").write_bytes((model / "model.sig").read_bytes())
    with pytest.raises(SignatureError, match=r"1\.bin\.sig is of a directory, not of one file"):
        pulled(file, tmp_path / "a.bin", judge)

    sign_model(file, key, file.with_name("1.bin.sig"))
    receipt = pulled(file, tmp_path / "a.bin", judge)
    assert (tmp_path / "a.bin").read_bytes() == FILES["w/1.bin"]
    assert (receipt.checks[-1], receipt.signer) == ("signature", judge.signer)

    file.write_bytes(b"?")
    with pytest.raises(SignatureError, match="is not what was signed"):
        pulled(file, tmp_path / "a.bin", judge)
    assert (tmp_path / "a.bin").read_bytes() == FILES["w/1.bin"]


def test_a_signed_archive_is_unpacked(tmp_path: Path, dest: Path, key: KeyPair, judge: SignatureVerifier) -> None:
    """After it was verified as a file; what is in it needs no signature of its own."""
    archive = signed_archive(tmp_path, key, pack_tar(FILES))

    receipt = pulled(archive, dest, judge)

    assert read_files(dest) == FILES
    assert "signature" in receipt.checks
    assert receipt.archive is not None
    assert not (dest.parent / STAGING_NAME).exists()


def test_an_archive_that_is_kept_is_verified_like_any_file(
    tmp_path: Path, key: KeyPair, judge: SignatureVerifier
) -> None:
    """With --no-extract."""
    archive = signed_archive(tmp_path, key, pack_tar(FILES))

    assert "signature" in pulled(archive, tmp_path / "kept.tar", judge, extract=False).checks
    assert (tmp_path / "kept.tar").read_bytes() == archive.read_bytes()


@pytest.mark.parametrize("name", ["model.tar", "model.tar.gz"])
def test_nothing_of_an_unsigned_archive_is_unpacked(
    tmp_path: Path, dest: Path, key: KeyPair, judge: SignatureVerifier, name: str
) -> None:
    """What would make the unpacking fail is not even looked at."""
    archive = signed_archive(tmp_path, key, pack_tar(FILES), name)
    bomb = pack_tar({"../evil": b"", "big": bytes(10_000_000)})
    archive.write_bytes(gzip.compress(bomb) if name.endswith("gz") else bomb)

    with pytest.raises(SignatureError) as caught:
        pulled(archive, dest, judge, max_bytes=50_000_000)

    assert "signed was sha256" in refused(caught, dest)
    assert not (dest.parent / "evil").exists()


def test_a_signed_archive_is_not_believed_to_be_harmless(
    tmp_path: Path, dest: Path, key: KeyPair, judge: SignatureVerifier
) -> None:
    """Its members are vetted, and counted, as any others."""
    hostile = signed_archive(tmp_path, key, pack_tar({"../evil": b""}))
    with pytest.raises(WrongBytesError, match=r"\.\."):
        pulled(hostile, dest, judge)

    bomb = signed_archive(tmp_path, key, gzip.compress(pack_tar({"big": bytes(10_000_000)})), "b.tar.gz")
    with pytest.raises(BudgetError):
        pulled(bomb, dest, judge, max_bytes=1_000_000)
    assert read_files(dest) == OLD


def test_an_unverified_model_is_pulled_again_to_verify_it(model: Path, dest: Path, judge: SignatureVerifier) -> None:
    """What lies there may be another's; once it is verified it is done."""
    first = pulled(model, dest)
    second = pulled(model, dest, judge)
    third = pulled(model, dest, judge)

    assert [("signature" in one.checks) for one in (first, second, third)] == [False, True, True]
    assert third == second
    assert pulled(model, dest) == second


def test_what_another_signer_vouched_for_is_not_done(
    model: Path, dest: Path, judge: SignatureVerifier, tmp_path: Path
) -> None:
    """With another key the same version is verified anew, and refused if it is not that key's."""
    there = pulled(model, dest, judge)
    other = SignatureVerifier(TrustPolicy(public_key=make_key_pair(tmp_path, "other").public))

    with pytest.raises(SignatureError, match="not valid"):
        pulled(model, dest, other)

    assert json.loads((dest / RECEIPT_NAME).read_text())["signer"] == there.signer


def test_what_was_verified_and_then_altered_is_pulled_again(model: Path, dest: Path, judge: SignatureVerifier) -> None:
    """As without a signature: by size and time, or by --recheck."""
    receipt = pulled(model, dest, judge)
    (dest / "config.json").write_bytes(b"[]")

    again = pulled(model, dest, judge)

    assert (dest / "config.json").read_bytes() == FILES["config.json"]
    assert again.digest == receipt.digest


def test_a_pin_and_a_signature_may_both_be_asked_for(
    model: Path, tmp_path: Path, key: KeyPair, judge: SignatureVerifier
) -> None:
    """Both must fit."""
    file = model / "w/1.bin"
    sign_model(file, key, file.with_name("1.bin.sig"))

    receipt = pulled(file, tmp_path / "a.bin", judge, sha256=sha256_hex(FILES["w/1.bin"]))

    assert {"pin", "signature"} <= {*receipt.checks}
    with pytest.raises(WrongBytesError, match="not the pinned model"):
        pulled(file, tmp_path / "b.bin", judge, sha256="00" * 32)


def test_every_difference_is_named() -> None:
    """What is altered, missing and too much, in one message; what is not known yet is not compared."""
    here = {"w/1.bin": "00" * 32, "empty": "", "w/2.bin": SUMS["w/2.bin"], "evil.py": "ab" * 32}

    with pytest.raises(SignatureError) as caught:
        check_signed_files("s3://b/m/", SUMS, forms(here), every)

    assert caught.value.message == (
        "s3://b/m/ is not what was signed: 'evil.py' is not signed; 'config.json' is missing;"
        f" 'w/1.bin': signed was sha256 {SUMS['w/1.bin']}, got {'00' * 32}."
    )


def test_many_differences_make_a_message_that_can_be_read() -> None:
    """The first twenty, and how many more."""
    with pytest.raises(SignatureError, match=r"^it is .*; 'f029' is not signed and 80 more\.$"):
        check_signed_files("it", {}, {f"f{n:03}": [] for n in range(10, 110)}, every)


def test_what_the_user_leaves_out_may_be_missing() -> None:
    """But nothing that is there may be unsigned."""
    here = {"w/1.bin": [SUMS["w/1.bin"]]}

    check_signed_files("it", SUMS, here, lambda path: path == "w/1.bin")

    with pytest.raises(SignatureError, match="'b' is not signed"):
        check_signed_files("it", SUMS, {**here, "b": []}, lambda _: False)


def test_what_is_stored_encoded_may_be_signed_in_either_form() -> None:
    """Before or after whoever uploaded it compressed it."""
    check_signed_files("it", {"a": "ab" * 32}, {"a": ["cd" * 32, "ab" * 32]}, every)

    with pytest.raises(SignatureError, match=f"got {'cd' * 32} or {'ef' * 32}"):
        check_signed_files("it", {"a": "ab" * 32}, {"a": ["cd" * 32, "ef" * 32]}, every)
