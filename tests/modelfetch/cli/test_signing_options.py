"""What is said about signatures makes sense as a whole, or is refused before anything is asked of a store."""

from pathlib import Path
from typing import Any

import pytest

from modelfetch.cli import settings
from modelfetch.cli.signing_options import key, trust
from modelfetch.errors import ConfigError, ModelfetchError, UsageError
from modelfetch.provenance.model_signing import SigningKey, TrustPolicy

SIGSTORE = {"identity": "a@b.c", "identity_provider": "https://d.e"}
NONSENSE: dict[str, tuple[dict[str, Any], str, str]] = {
    "verified by nobody": ({"verify_signature": True}, "verify_signature", "needs to know whose"),
    "a key for nothing": ({"public_key": "k"}, "public_key", "no signature is to be verified"),
    "certificates for nothing": ({"certificate_chain": ["c"]}, "certificate_chain", "no signature is to be verified"),
    "an identity for nothing": (SIGSTORE, "identity", "no signature is to be verified"),
    "a trust root for nothing": ({"trust_config": "t"}, "trust_config", "no signature is to be verified"),
    "a key and certificates": (
        {"verify_signature": True, "public_key": "k", "certificate_chain": ["c"]},
        "certificate_chain",
        "several signers",
    ),
    "a key and an identity": ({"verify_signature": True, "public_key": "k", **SIGSTORE}, "identity", "several signers"),
    "an identity of nobody": ({"verify_signature": True, "identity": "a@b.c"}, "identity", "without"),
    "nobody's provider": (
        {"verify_signature": True, "identity_provider": "https://d.e"},
        "identity_provider",
        "without",
    ),
    "a trust root of nobody": ({"verify_signature": True, "trust_config": "t"}, "trust_config", "without"),
    "a key with a provider": (
        {"verify_signature": True, "public_key": "k", "identity_provider": "https://d.e"},
        "identity_provider",
        "without",
    ),
    "signed with nothing": ({"sign": True}, "sign", "needs a key"),
    "a private key for nothing": ({"private_key": "k"}, "private_key", "nothing is to be signed"),
}


def read(given: dict[str, Any]) -> tuple[TrustPolicy | None, SigningKey | None]:
    """What the flags and the environment say."""
    chosen = settings.load(given)
    return trust(chosen, given), key(chosen, given)


def test_by_default_nothing_is_verified_and_nothing_signed() -> None:
    """Signatures are asked for."""
    assert read({}) == (None, None)


@pytest.mark.parametrize(
    ("given", "whose"),
    [
        ({"public_key": "k"}, TrustPolicy(public_key=Path("k"))),
        ({"certificate_chain": ["a", "b,c"]}, TrustPolicy(certificate_chain=(Path("a"), Path("b"), Path("c")))),
        (SIGSTORE, TrustPolicy(**SIGSTORE)),  # type: ignore[arg-type]
        ({**SIGSTORE, "trust_config": "t"}, TrustPolicy(**SIGSTORE, trust_config=Path("t"))),  # type: ignore[arg-type]
    ],
)
def test_one_signer_is_enough(given: dict[str, Any], whose: TrustPolicy) -> None:
    """A key, certificates, or an identity."""
    assert read({"verify_signature": True, **given}) == (whose, None)


def test_a_key_and_its_password_sign(monkeypatch: pytest.MonkeyPatch) -> None:
    """The password comes from the environment only."""
    monkeypatch.setenv("MODELFETCH_PRIVATE_KEY_PASSWORD", "s3cret")

    assert read({"sign": True, "private_key": "k"}) == (None, SigningKey(Path("k"), "s3cret"))
    assert read({}) == (None, None)


@pytest.mark.parametrize(("given", "field", "said"), NONSENSE.values(), ids=NONSENSE)
def test_what_makes_no_sense_is_a_usage_error_that_names_the_flag(given: dict[str, Any], field: str, said: str) -> None:
    """And says what to do."""
    with pytest.raises(UsageError, match=said) as caught:
        read(given)

    assert f"--{field.replace('_', '-')} " in caught.value.message
    assert "--" in caught.value.hint or "Give one" in caught.value.hint


@pytest.mark.parametrize(("given", "field", "said"), NONSENSE.values(), ids=NONSENSE)
def test_in_the_environment_it_is_a_config_error_that_names_the_variable(
    given: dict[str, Any], field: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing that was meant to be verified is pulled unverified because half of it was set."""
    for name, value in given.items():
        monkeypatch.setenv(settings.variables(name)[0], "true" if value is True else str(value).strip("[]'"))

    with pytest.raises(ConfigError, match=said) as caught:
        read({})

    assert f"MODELFETCH_{field.upper()} " in caught.value.message


def test_a_flag_that_says_no_does_not_silence_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever wants no verification takes the key away."""
    monkeypatch.setenv("MODELFETCH_PUBLIC_KEY", "k")

    with pytest.raises(ModelfetchError, match="no signature is to be verified"):
        read({"verify_signature": False})
