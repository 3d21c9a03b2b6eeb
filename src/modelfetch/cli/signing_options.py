"""What the settings say about signatures, made sense of: whose are believed, with what to sign; or refused."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelfetch.cli.settings import Settings, variables
from modelfetch.errors import ConfigError, ModelfetchError, UsageError
from modelfetch.provenance.model_signing import SigningKey, TrustPolicy

_KINDS = ("public_key", "certificate_chain", "identity")
_ALL = (*_KINDS, "identity_provider", "trust_config")


def trust(chosen: Settings, given: Mapping[str, Any]) -> TrustPolicy | None:
    """Whose signatures `pull` believes; None if it is to verify none.

    Raises:
        UsageError: the flags name nobody, two, or somebody although nothing is to be verified.
        ConfigError: the environment does.
    """
    named = [field for field in _ALL if getattr(chosen, field)]
    kinds = [field for field in _KINDS if field in named]
    if not chosen.verify_signature:
        if named:
            raise _refused(
                named[0],
                given,
                f"{_called(named[0], given)} is given, but no signature is to be verified.",
                hint="Give --verify-signature (MODELFETCH_VERIFY_SIGNATURE=true) too, or leave it out.",
            )
        return None
    if len(kinds) > 1:
        both = " and ".join(_called(field, given) for field in kinds)
        raise _refused(kinds[-1], given, f"{both} name several signers.", hint="Give one of them.")
    _refuse_halves(named, given)
    if not kinds:
        raise _refused(
            "verify_signature",
            given,
            f"{_called('verify_signature', given)} needs to know whose signature.",
            hint="Give --public-key, --certificate-chain, or --identity with --identity-provider.",
        )
    return TrustPolicy(
        public_key=chosen.public_key,
        certificate_chain=tuple(map(Path, chosen.certificate_chain)),
        identity=chosen.identity or "",
        identity_provider=chosen.identity_provider or "",
        trust_config=chosen.trust_config,
    )


def _refuse_halves(named: list[str], given: Mapping[str, Any]) -> None:
    """An identity is one only with who vouches for it."""
    for half, other in (
        ("identity", "identity_provider"),
        ("identity_provider", "identity"),
        ("trust_config", "identity"),
    ):
        if half in named and other not in named:
            flag, variable = f"--{other.replace('_', '-')}", variables(other)[0]
            said = f"{_called(half, given)} is given without {flag}."
            raise _refused(half, given, said, hint=f"Give {flag} ({variable}) too.")


def key(chosen: Settings, given: Mapping[str, Any]) -> SigningKey | None:
    """What `push` signs with; None if it is not to sign.

    Raises:
        UsageError: the flags ask for a signature without a key, or give a key for none.
        ConfigError: the environment does.
    """
    if chosen.sign and chosen.private_key:
        password = chosen.private_key_password
        return SigningKey(chosen.private_key, password.get_secret_value() if password else "")
    if chosen.sign:
        raise _refused(
            "sign",
            given,
            f"{_called('sign', given)} needs a key to sign with.",
            hint="Give --private-key (MODELFETCH_PRIVATE_KEY).",
        )
    if chosen.private_key:
        raise _refused(
            "private_key",
            given,
            f"{_called('private_key', given)} is given, but nothing is to be signed.",
            hint="Give --sign (MODELFETCH_SIGN=true) too, or leave it out.",
        )
    return None


def _called(field: str, given: Mapping[str, Any]) -> str:
    """A setting by the name that it was set by: its flag, or its variable."""
    return f"--{field.replace('_', '-')}" if given.get(field) is not None else variables(field)[0]


def _refused(field: str, given: Mapping[str, Any], message: str, *, hint: str) -> ModelfetchError:
    """The error for a setting that does not go with the others."""
    kind = UsageError if given.get(field) is not None else ConfigError
    return kind(message, hint=hint)
