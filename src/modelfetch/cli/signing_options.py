"""Settings about signatures, validated as a whole: trusted signer of `pull`, signing key of `push`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelfetch.cli.settings import Settings, flag_name, list_variables
from modelfetch.errors import ConfigError, ModelfetchError, UsageError
from modelfetch.provenance.model_signing import SigningKey, TrustPolicy

_SIGNER_FIELDS = ("public_key", "certificate_chain", "identity")  # each names a signer
_TRUST_FIELDS = (*_SIGNER_FIELDS, "identity_provider", "trust_config")


def make_trust_policy(settings: Settings, flags: Mapping[str, Any]) -> TrustPolicy | None:
    """Return the signer that `pull` trusts; None if no signature is to be verified.

    Raises:
        UsageError: the flags name no signer, several signers, or a signer without `--verify-signature`.
        ConfigError: likewise for the environment.
    """
    present = [field for field in _TRUST_FIELDS if getattr(settings, field)]
    signers = [field for field in _SIGNER_FIELDS if field in present]
    if not settings.verify_signature:
        if present:
            raise _settings_error(
                present[0],
                flags,
                f"{_given_name(present[0], flags)} is given, but no signature is to be verified.",
                hint="Give --verify-signature (MODELFETCH_VERIFY_SIGNATURE=true) too, or leave it out.",
            )
        return None
    if len(signers) > 1:
        names = " and ".join(_given_name(field, flags) for field in signers)
        raise _settings_error(signers[-1], flags, f"{names} name several signers.", hint="Give one of them.")
    _check_identity_fields(present, flags)
    if not signers:
        raise _settings_error(
            "verify_signature",
            flags,
            f"{_given_name('verify_signature', flags)} needs to know whose signature.",
            hint="Give --public-key, --certificate-chain, or --identity with --identity-provider.",
        )
    return TrustPolicy(
        public_key=settings.public_key,
        certificate_chain=tuple(map(Path, settings.certificate_chain)),
        identity=settings.identity or "",
        identity_provider=settings.identity_provider or "",
        trust_config=settings.trust_config,
    )


def _check_identity_fields(present: list[str], flags: Mapping[str, Any]) -> None:
    """Refuse an identity without its provider, and a provider or trust configuration without an identity."""
    for field, needed in (
        ("identity", "identity_provider"),
        ("identity_provider", "identity"),
        ("trust_config", "identity"),
    ):
        if field in present and needed not in present:
            flag, variable = flag_name(needed), list_variables(needed)[0]
            message = f"{_given_name(field, flags)} is given without {flag}."
            raise _settings_error(field, flags, message, hint=f"Give {flag} ({variable}) too.")


def make_signing_key(settings: Settings, flags: Mapping[str, Any]) -> SigningKey | None:
    """Return the key that `push` signs with; None if nothing is to be signed.

    Raises:
        UsageError: the flags ask for a signature without a key, or give a key without `--sign`.
        ConfigError: likewise for the environment.
    """
    if settings.sign and settings.private_key:
        password = settings.private_key_password
        return SigningKey(settings.private_key, password.get_secret_value() if password else "")
    if settings.sign:
        raise _settings_error(
            "sign",
            flags,
            f"{_given_name('sign', flags)} needs a key to sign with.",
            hint="Give --private-key (MODELFETCH_PRIVATE_KEY).",
        )
    if settings.private_key:
        raise _settings_error(
            "private_key",
            flags,
            f"{_given_name('private_key', flags)} is given, but nothing is to be signed.",
            hint="Give --sign (MODELFETCH_SIGN=true) too, or leave it out.",
        )
    return None


def _given_name(field: str, flags: Mapping[str, Any]) -> str:
    """Return the flag or the variable by which a setting was given."""
    return flag_name(field) if flags.get(field) is not None else list_variables(field)[0]


def _settings_error(field: str, flags: Mapping[str, Any], message: str, *, hint: str) -> ModelfetchError:
    """Return the error for a contradictory setting: usage error for a flag, configuration error for a variable."""
    kind = UsageError if flags.get(field) is not None else ConfigError
    return kind(message, hint=hint)
