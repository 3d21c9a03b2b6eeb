"""Settings about signatures: a valid combination gives a policy or a key; any other is refused before any request."""

from pathlib import Path
from typing import Any

import pytest

from modelfetch.cli.settings import list_variables, load_settings
from modelfetch.cli.signing_options import make_signing_key, make_trust_policy
from modelfetch.errors import ConfigError, ModelfetchError, UsageError
from modelfetch.provenance.model_signing import SigningKey, TrustPolicy

SIGSTORE = {"identity": "a@b.c", "identity_provider": "https://d.e"}
CONTRADICTIONS: dict[str, tuple[dict[str, Any], str, str]] = {
    "verification without a signer": ({"verify_signature": True}, "verify_signature", "needs to know whose"),
    "a key without verification": ({"public_key": "k"}, "public_key", "no signature is to be verified"),
    "certificates without verification": (
        {"certificate_chain": ["c"]},
        "certificate_chain",
        "no signature is to be verified",
    ),
    "an identity without verification": (SIGSTORE, "identity", "no signature is to be verified"),
    "a trust root without verification": ({"trust_config": "t"}, "trust_config", "no signature is to be verified"),
    "a key and certificates": (
        {"verify_signature": True, "public_key": "k", "certificate_chain": ["c"]},
        "certificate_chain",
        "several signers",
    ),
    "a key and an identity": ({"verify_signature": True, "public_key": "k", **SIGSTORE}, "identity", "several signers"),
    "an identity without a provider": ({"verify_signature": True, "identity": "a@b.c"}, "identity", "without"),
    "a provider without an identity": (
        {"verify_signature": True, "identity_provider": "https://d.e"},
        "identity_provider",
        "without",
    ),
    "a trust root without an identity": ({"verify_signature": True, "trust_config": "t"}, "trust_config", "without"),
    "a key with a provider": (
        {"verify_signature": True, "public_key": "k", "identity_provider": "https://d.e"},
        "identity_provider",
        "without",
    ),
    "signing without a key": ({"sign": True}, "sign", "needs a key"),
    "a private key without signing": ({"private_key": "k"}, "private_key", "nothing is to be signed"),
}


def read_options(flags: dict[str, Any]) -> tuple[TrustPolicy | None, SigningKey | None]:
    """Return trust policy and signing key by flags and environment."""
    settings = load_settings(flags)
    return make_trust_policy(settings, flags), make_signing_key(settings, flags)


def test_without_options_nothing_is_verified_or_signed() -> None:
    """Verification and signing need explicit options."""
    assert read_options({}) == (None, None)


@pytest.mark.parametrize(
    ("flags", "policy"),
    [
        ({"public_key": "k"}, TrustPolicy(public_key=Path("k"))),
        ({"certificate_chain": ["a", "b,c"]}, TrustPolicy(certificate_chain=(Path("a"), Path("b"), Path("c")))),
        (SIGSTORE, TrustPolicy(**SIGSTORE)),  # type: ignore[arg-type]
        ({**SIGSTORE, "trust_config": "t"}, TrustPolicy(**SIGSTORE, trust_config=Path("t"))),  # type: ignore[arg-type]
    ],
)
def test_each_kind_of_signer_gives_a_policy(flags: dict[str, Any], policy: TrustPolicy) -> None:
    """A key, certificates, or an identity with its provider suffices."""
    assert read_options({"verify_signature": True, **flags}) == (policy, None)


def test_private_key_and_password_give_a_signing_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """The password comes from the environment, never from a flag."""
    monkeypatch.setenv("MODELFETCH_PRIVATE_KEY_PASSWORD", "s3cret")

    assert read_options({"sign": True, "private_key": "k"}) == (None, SigningKey(Path("k"), "s3cret"))
    assert read_options({}) == (None, None)


@pytest.mark.parametrize(("flags", "field", "message"), CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_contradictory_flags_are_a_usage_error(flags: dict[str, Any], field: str, message: str) -> None:
    """The error names the flag, and the hint names a remedy."""
    with pytest.raises(UsageError, match=message) as caught:
        read_options(flags)

    assert f"--{field.replace('_', '-')} " in caught.value.message
    assert "--" in caught.value.hint or "Give one" in caught.value.hint


@pytest.mark.parametrize(("flags", "field", "message"), CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_contradictory_variables_are_a_config_error(
    flags: dict[str, Any], field: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names the variable: half a configuration never means a pull without verification."""
    for name, value in flags.items():
        monkeypatch.setenv(list_variables(name)[0], "true" if value is True else str(value).strip("[]'"))

    with pytest.raises(ConfigError, match=message) as caught:
        read_options({})

    assert f"MODELFETCH_{field.upper()} " in caught.value.message


def test_negated_flag_does_not_silence_a_key_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key without verification is refused, also with --no-verify-signature."""
    monkeypatch.setenv("MODELFETCH_PUBLIC_KEY", "k")

    with pytest.raises(ModelfetchError, match="no signature is to be verified"):
        read_options({"verify_signature": False})
