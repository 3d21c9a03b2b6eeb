"""Settings: flag, environment variable and row of `modelfetch config` each. Flags beat variables beat defaults."""

import json
import os
import re
import string
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import AliasChoices, BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from modelfetch.cli.redaction import mask_credentials
from modelfetch.errors import ConfigError, UsageError

PREFIX = "MODELFETCH_"

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgtpe]?)(i?)b?", re.IGNORECASE)
_TIME = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|)")
_MAX_SIZE, _MAX_SECONDS = 2**63, 10 * 365 * 86_400  # sockets and timers take at most some 290 years
_UNITS = {"ms": 0.001, "": 1, "s": 1, "m": 60, "h": 3600}


def _parse_size(value: object) -> object:
    """Parse bytes from `64Mi`, `2GB` or a number, with Kubernetes' or SI suffixes."""
    if not isinstance(value, str):
        return value
    match = _SIZE.fullmatch(value.strip())
    if not match:
        raise ValueError("write bytes, or a size such as 64Mi or 2GB")
    number, unit, binary = match.groups()
    power = " kmgtpe".index(unit.lower() or " ")
    size = float(number) * (1024 if binary else 1000) ** power
    if size > _MAX_SIZE:
        raise ValueError("that is more than any disk has")
    return int(size)


def _parse_time(value: object) -> object:
    """Parse seconds from `30s`, `5m`, `1h`, `250ms` or a number."""
    if not isinstance(value, str):
        return value
    match = _TIME.fullmatch(value.strip().lower())
    if not match:
        raise ValueError("write seconds, or a time such as 30s or 5m")
    seconds = float(match[1]) * _UNITS[match[2]]
    if seconds > _MAX_SECONDS:
        raise ValueError("that is more than ten years")
    return seconds


def _parse_patterns(value: str | Sequence[str]) -> tuple[str, ...]:
    """Parse globs from a comma-separated list or a JSON list."""
    if not isinstance(value, str):
        return tuple(pattern for part in value for pattern in _parse_patterns(part))
    if re.match(r"\s*\[\s*[\"\]]", value):  # a glob may begin with a bracket too
        try:
            return tuple(str(pattern) for pattern in json.loads(value))
        except RecursionError:
            raise ValueError("write a list of globs") from None
    return tuple(part.strip() for part in value.split(",") if part.strip())


def _parse_sha256(value: object) -> object:
    """Parse a sha256 in hexadecimal digits of either case, with or without `sha256:`."""
    if not isinstance(value, str):
        return value
    text = value.strip().lower().removeprefix("sha256:")
    if len(text) != 64 or not set(text) <= set(string.hexdigits):
        raise ValueError("write the 64 hexadecimal digits of a sha256")
    return text


Bytes = Annotated[int, BeforeValidator(_parse_size), Field(ge=1)]
Seconds = Annotated[float, BeforeValidator(_parse_time), Field(gt=0)]
Patterns = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_parse_patterns)]


def _variable_names(field: str, *others: str) -> AliasChoices:
    return AliasChoices(PREFIX + field.upper(), *others)


class Settings(BaseSettings):
    """Every setting of every command; `description` is the text of `--help` and of the README's table."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        populate_by_name=True,
        case_sensitive=True,
    )

    source: str | None = Field(
        None, validation_alias=_variable_names("source"), description="URI of the model, unless given as an argument."
    )
    dest: str | None = Field(
        None,
        validation_alias=_variable_names("dest", "LOCAL_MODEL_PATH"),
        description="Destination, unless given as an argument.",
    )
    retries: int = Field(
        3, ge=1, validation_alias=_variable_names("retries"), description="Number of tries of a whole pull."
    )
    retry_wait: Seconds = Field(
        10.0,
        validation_alias=_variable_names("retry_wait"),
        description="Wait before the second try; doubled before each further try.",
    )
    stall_timeout: Seconds = Field(
        30.0,
        validation_alias=_variable_names("stall_timeout"),
        description="Time without a byte after which a connection is dropped.",
    )
    timeout: Seconds | None = Field(
        None, validation_alias=_variable_names("timeout"), description="Deadline for the whole command."
    )
    sha256: Annotated[str, BeforeValidator(_parse_sha256)] | None = Field(
        None,
        validation_alias=_variable_names("sha256"),
        description="Pin: sha256 of the object; for a directory, the digest in its receipt.",
    )
    require_manifest: bool = Field(
        False,
        validation_alias=_variable_names("require_manifest"),
        description="Refuse a source without the manifest that push writes.",
    )
    extract: bool = Field(True, validation_alias=_variable_names("extract"), description="Extract an archive.")
    include: Patterns = Field(
        (),
        validation_alias=_variable_names("include", "STORAGE_ALLOW_PATTERNS"),
        description="Pull only files that match (globs, for a directory).",
    )
    exclude: Patterns = Field(
        (),
        validation_alias=_variable_names("exclude", "STORAGE_IGNORE_PATTERNS"),
        description="Skip files that match (globs, for a directory).",
    )
    publish: Literal["auto", "exchange", "entries"] = Field(
        "auto",
        validation_alias=_variable_names("publish"),
        description="How a directory is replaced: exchange by one rename, entries one by one, or the safe one.",
    )
    max_bytes: Bytes | None = Field(
        None,
        validation_alias=_variable_names("max_bytes"),
        description="Limit on published bytes; default: the free space.",
    )
    max_files: int = Field(
        1_000_000, ge=1, validation_alias=_variable_names("max_files"), description="Limit on published files."
    )
    max_ratio: float = Field(
        1000.0,
        ge=1,
        validation_alias=_variable_names("max_ratio"),
        description="Limit on an archive's expansion: bytes extracted per byte read.",
    )
    memory: Bytes = Field(64 * 1024**2, validation_alias=_variable_names("memory"), description="Memory for buffers.")
    connections: int | None = Field(
        None,
        ge=1,
        le=64,
        validation_alias=_variable_names("connections"),
        description="Number of parallel requests; default: adaptive.",
    )
    anonymous: bool = Field(
        False,
        validation_alias=_variable_names("anonymous", "awsAnonymousCredential"),
        description="Send no credentials (public buckets).",
    )
    bearer_token: SecretStr | None = Field(
        None, validation_alias=_variable_names("bearer_token"), description="Token for https sources."
    )
    recheck: bool = Field(
        False,
        validation_alias=_variable_names("recheck"),
        description="Hash the published files before the model counts as up to date.",
    )
    verify_signature: bool = Field(
        False,
        validation_alias=_variable_names("verify_signature"),
        description="Publish only a model signed by the given signer.",
    )
    public_key: Path | None = Field(
        None,
        validation_alias=_variable_names("public_key"),
        description="Signer: holder of this public key (PEM, elliptic curve).",
    )
    certificate_chain: Patterns = Field(
        (),
        validation_alias=_variable_names("certificate_chain"),
        description="Signer: holder of a certificate that chains to these (PEM, root included).",
    )
    identity: str | None = Field(
        None,
        validation_alias=_variable_names("identity"),
        description="Signer: this e-mail address or URI, certified by Sigstore.",
    )
    identity_provider: str | None = Field(
        None,
        validation_alias=_variable_names("identity_provider"),
        description="URL of the provider that vouches for the identity.",
    )
    trust_config: Path | None = Field(
        None,
        validation_alias=_variable_names("trust_config"),
        description="Sigstore trust configuration (JSON); default: the public instance's, downloaded.",
    )
    sign: bool = Field(False, validation_alias=_variable_names("sign"), description="Sign the pushed model.")
    private_key: Path | None = Field(
        None,
        validation_alias=_variable_names("private_key"),
        description="Private key to sign with (PEM, elliptic curve).",
    )
    private_key_password: SecretStr | None = Field(
        None,
        validation_alias=_variable_names("private_key_password"),
        description="Password of the private key, if encrypted.",
    )
    termination_log: Path | None = Field(
        None,
        validation_alias=_variable_names("termination_log"),
        description="File for the failure report; default: /dev/termination-log, if writable.",
    )
    log_format: Literal["auto", "json", "text"] = Field(
        "auto",
        validation_alias=_variable_names("log_format"),
        description="auto: text on a terminal, JSON lines otherwise.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", validation_alias=_variable_names("log_level"), description="Log this level and above."
    )
    progress: Literal["auto", "bar", "lines", "off"] = Field(
        "auto", validation_alias=_variable_names("progress"), description="auto: bar on a terminal, lines otherwise."
    )


# Placeholder for a flag's value in `--help`; flags without a placeholder are switches or choices.
METAVARS = {
    **dict.fromkeys(("retries", "max_files", "connections"), "COUNT"),
    **dict.fromkeys(("retry_wait", "stall_timeout", "timeout"), "TIME"),
    **dict.fromkeys(("max_bytes", "memory"), "SIZE"),
    **dict.fromkeys(("include", "exclude"), "GLOB"),
    "max_ratio": "NUMBER",
    "sha256": "HEX",
    **dict.fromkeys(("termination_log", "public_key", "certificate_chain", "trust_config", "private_key"), "PATH"),
    **dict.fromkeys(("identity", "identity_provider"), "TEXT"),
}

# Settings without a flag: a secret on the command line shows in `ps`; source and destination are arguments.
WITHOUT_FLAG = frozenset({"bearer_token", "private_key_password", "source", "dest"})

# Settings of `push` only.
PUSH_ONLY = frozenset({"sign", "private_key", "private_key_password"})


def load_settings(flags: Mapping[str, Any]) -> Settings:
    """Load the settings from flags, else from environment variables, else from the defaults.

    Raises:
        UsageError: a flag's value is invalid.
        ConfigError: a variable's value is invalid.
    """
    try:
        return Settings(**{name: value for name, value in flags.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        alias = str(first["loc"][0])
        field = next((n for n in Settings.model_fields if n == alias or alias in list_variables(n)), alias)
        reason = first["msg"].removeprefix("Value error, ")
        secret = field in Settings.model_fields and is_secret(field)
        value = "" if secret else f" {str(first['input'])[:80]!r}"
        if flags.get(field) is not None:
            raise UsageError(f"{flag_name(field)}{value}: {reason}.", hint="See modelfetch pull --help.") from None
        name = next((v for v in list_variables(field) if os.environ.get(v)), alias)
        raise ConfigError(f"{name}{value}: {reason}.", hint="Correct the variable, or unset it.") from None


def flag_name(field: str) -> str:
    """Return the flag of a setting, as in `--retry-wait`."""
    return f"--{field.replace('_', '-')}"


def list_variables(field: str) -> list[str]:
    """Return the environment variables of a setting, the `MODELFETCH_*` name first."""
    alias = Settings.model_fields[field].validation_alias
    assert isinstance(alias, AliasChoices)
    return [str(choice) for choice in alias.choices]


def find_origin(field: str, flags: Mapping[str, Any]) -> str:
    """Return the origin of a setting's value: `flag`, the variable's name, or `default`."""
    if flags.get(field) is not None:
        return "flag"
    return next((name for name in list_variables(field) if os.environ.get(name)), "default")


def is_secret(field: str) -> bool:
    """Return whether a setting's value is a secret."""
    annotation = Settings.model_fields[field].annotation
    return SecretStr in (annotation, *get_args(annotation))


def format_value(field: str, value: object) -> str:
    """Format a setting's value with its unit, as a user writes the value; pydantic masks secret values."""
    match value:
        case None | ():
            return ""
        case bool():
            return str(value).lower()
        case tuple():
            return ",".join(value)
        case float() if METAVARS[field] == "TIME":
            return f"{value:g}s"
        case float():
            return f"{value:g}"
        case int() if METAVARS[field] == "SIZE" and value % 1024**2 == 0:
            return f"{value // 1024**2}Mi"
        case _:
            return mask_credentials(str(value))
