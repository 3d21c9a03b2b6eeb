"""The settings: the only reader of the environment. Flags beat environment beats defaults."""

import difflib
import json
import os
import re
import string
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args

from pydantic import AliasChoices, BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from modelfetch.errors import ConfigError, UsageError
from modelfetch.sources.base import is_truthy

PREFIX = "MODELFETCH_"
TERMINATION_LOG = Path("/dev/termination-log")

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgtpe]?)(i?)b?", re.IGNORECASE)
_TIME = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|)")
_MOST_BYTES, _MOST_SECONDS = 2**63, 10 * 365 * 86_400  # sockets and timers take no more than some 290 years
_UNITS = {"ms": 0.001, "": 1, "s": 1, "m": 60, "h": 3600}
# What Kubernetes injects for a Service called modelfetch: https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
_SERVICE_LINK = re.compile(r"(.+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_\w+)?)")


def _bytes(value: object) -> object:
    """Bytes from `64Mi`, `2GB` or a number: Kubernetes' and everyone's suffixes."""
    if not isinstance(value, str):
        return value
    found = _SIZE.fullmatch(value.strip())
    if not found:
        raise ValueError("write bytes, or a size such as 64Mi or 2GB")
    number, unit, binary = found.groups()
    power = " kmgtpe".index(unit.lower() or " ")
    size = float(number) * (1024 if binary else 1000) ** power
    if size > _MOST_BYTES:
        raise ValueError("that is more than any disk has")
    return int(size)


def _seconds(value: object) -> object:
    """Seconds from `30s`, `5m`, `1h`, `250ms` or a number."""
    if not isinstance(value, str):
        return value
    found = _TIME.fullmatch(value.strip().lower())
    if not found:
        raise ValueError("write seconds, or a time such as 30s or 5m")
    seconds = float(found[1]) * _UNITS[found[2]]
    if seconds > _MOST_SECONDS:
        raise ValueError("that is more than ten years")
    return seconds


def _patterns(value: str | Sequence[str]) -> tuple[str, ...]:
    """Globs from a comma-separated or a JSON list."""
    if not isinstance(value, str):
        return tuple(pattern for part in value for pattern in _patterns(part))
    if re.match(r"\s*\[\s*[\"\]]", value):  # a glob may begin with a bracket too
        try:
            return tuple(str(pattern) for pattern in json.loads(value))
        except RecursionError:
            raise ValueError("write a list of globs") from None
    return tuple(part.strip() for part in value.split(",") if part.strip())


def _hex_sha256(value: object) -> object:
    if not isinstance(value, str):
        return value
    text = value.strip().lower().removeprefix("sha256:")
    if len(text) != 64 or not set(text) <= set(string.hexdigits):
        raise ValueError("write the 64 hexadecimal digits of a sha256")
    return text


Bytes = Annotated[int, BeforeValidator(_bytes), Field(ge=1)]
Seconds = Annotated[float, BeforeValidator(_seconds), Field(gt=0)]
Patterns = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_patterns)]


def _named(name: str, *others: str) -> AliasChoices:
    return AliasChoices(PREFIX + name.upper(), *others)


class Settings(BaseSettings):
    """Every setting: a flag, an environment variable, a row of `modelfetch config`."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        populate_by_name=True,
        case_sensitive=True,
    )

    source: str | None = Field(
        None, validation_alias=_named("source"), description="The model's URI, if none is given as argument."
    )
    dest: str | None = Field(
        None,
        validation_alias=_named("dest", "LOCAL_MODEL_PATH"),
        description="Where the model goes, if not given as argument.",
    )
    retries: int = Field(3, ge=1, validation_alias=_named("retries"), description="Tries of a whole pull.")
    retry_wait: Seconds = Field(
        10.0,
        validation_alias=_named("retry_wait"),
        description="Wait before the second try; then twice as long each time.",
    )
    stall_timeout: Seconds = Field(
        30.0, validation_alias=_named("stall_timeout"), description="A connection without a byte for so long is dead."
    )
    timeout: Seconds | None = Field(None, validation_alias=_named("timeout"), description="Time for everything.")
    sha256: Annotated[str, BeforeValidator(_hex_sha256)] | None = Field(
        None,
        validation_alias=_named("sha256"),
        description="Pin: the object's sha256; for a directory, its receipt's digest.",
    )
    require_manifest: bool = Field(
        False,
        validation_alias=_named("require_manifest"),
        description="Pull nothing without the manifest that push writes.",
    )
    extract: bool = Field(True, validation_alias=_named("extract"), description="Unpack an archive.")
    include: Patterns = Field(
        (),
        validation_alias=_named("include", "STORAGE_ALLOW_PATTERNS"),
        description="Globs of a directory's files to take.",
    )
    exclude: Patterns = Field(
        (),
        validation_alias=_named("exclude", "STORAGE_IGNORE_PATTERNS"),
        description="Globs of a directory's files to leave.",
    )
    max_bytes: Bytes | None = Field(
        None, validation_alias=_named("max_bytes"), description="Most bytes to publish; default: what is free."
    )
    max_files: int = Field(1_000_000, ge=1, validation_alias=_named("max_files"), description="Most files to publish.")
    max_ratio: float = Field(
        1000.0,
        ge=1,
        validation_alias=_named("max_ratio"),
        description="Most bytes that one byte of an archive may become.",
    )
    memory: Bytes = Field(64 * 1024**2, validation_alias=_named("memory"), description="Memory for buffers.")
    connections: int | None = Field(
        None, ge=1, le=64, validation_alias=_named("connections"), description="Parallel requests; default: as suits."
    )
    anonymous: bool = Field(
        False,
        validation_alias=_named("anonymous", "awsAnonymousCredential"),
        description="Send no credentials: public buckets.",
    )
    bearer_token: SecretStr | None = Field(
        None, validation_alias=_named("bearer_token"), description="Token for https sources."
    )
    recheck: bool = Field(
        False, validation_alias=_named("recheck"), description="Hash what is there before calling it done."
    )
    verify_signature: bool = Field(
        False,
        validation_alias=_named("verify_signature"),
        description="Publish nothing but what is signed; say by whom.",
    )
    public_key: Path | None = Field(
        None,
        validation_alias=_named("public_key"),
        description="By whom: the holder of this key (PEM, elliptic curve).",
    )
    certificate_chain: Patterns = Field(
        (),
        validation_alias=_named("certificate_chain"),
        description="By whom: a certificate that leads to these (PEM; the root must be among them).",
    )
    identity: str | None = Field(
        None, validation_alias=_named("identity"), description="By whom: this e-mail address or URI, through Sigstore."
    )
    identity_provider: str | None = Field(
        None, validation_alias=_named("identity_provider"), description="URL of who vouches for the identity."
    )
    trust_config: Path | None = Field(
        None,
        validation_alias=_named("trust_config"),
        description="Sigstore's trust configuration (JSON); default: the public instance's, fetched.",
    )
    sign: bool = Field(False, validation_alias=_named("sign"), description="Sign what is pushed.")
    private_key: Path | None = Field(
        None, validation_alias=_named("private_key"), description="The key to sign with (PEM, elliptic curve)."
    )
    private_key_password: SecretStr | None = Field(
        None, validation_alias=_named("private_key_password"), description="The private key's password, if it has one."
    )
    termination_log: Path | None = Field(
        None,
        validation_alias=_named("termination_log"),
        description="Where the reason of a failure goes; default: /dev/termination-log, if writable.",
    )
    log_format: Literal["auto", "json", "text"] = Field(
        "auto", validation_alias=_named("log_format"), description="auto: text on a terminal, else json."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", validation_alias=_named("log_level"), description="Least level to log."
    )
    progress: Literal["auto", "bar", "lines", "off"] = Field(
        "auto", validation_alias=_named("progress"), description="auto: bar on a terminal, else lines."
    )


# What a flag takes, in the word that `--help` shows; the others are switches or choices.
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

# Flags that would put a secret on the command line, where `ps` shows it.
WITHOUT_FLAG = frozenset({"bearer_token", "private_key_password", "source", "dest"})

# What only `push` asks for.
OF_PUSH = frozenset({"sign", "private_key", "private_key_password"})


def load(given: Mapping[str, Any]) -> Settings:
    """The settings: what was given as flags, else the environment's, else the defaults.

    Raises:
        UsageError: a flag's value makes no sense.
        ConfigError: a variable's value makes no sense.
    """
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        alias = str(first["loc"][0])
        field = next((n for n in Settings.model_fields if n == alias or alias in variables(n)), alias)
        reason = first["msg"].removeprefix("Value error, ")
        secret = field in Settings.model_fields and _is_secret(field)
        shown = "" if secret else f" {str(first['input'])[:80]!r}"
        if given.get(field) is not None:
            raise UsageError(
                f"--{field.replace('_', '-')}{shown}: {reason}.", hint="See modelfetch pull --help."
            ) from None
        name = next((v for v in variables(field) if os.environ.get(v)), alias)
        raise ConfigError(f"{name}{shown}: {reason}.", hint="Correct the variable, or unset it.") from None


def termination_log() -> Path | None:
    """Where the reason of a failure goes that comes before any flag is read: the cluster's file only if it is there."""
    path = _get(f"{PREFIX}TERMINATION_LOG")
    if path:
        return Path(path)
    return TERMINATION_LOG if os.access(TERMINATION_LOG, os.W_OK) else None


def variables(field: str) -> list[str]:
    """The environment variables that set a field, the first one ours."""
    alias = Settings.model_fields[field].validation_alias
    assert isinstance(alias, AliasChoices)
    return [str(choice) for choice in alias.choices]


def origin(field: str, given: Mapping[str, Any]) -> str:
    """Where a setting's value came from."""
    if given.get(field) is not None:
        return "flag"
    return next((name for name in variables(field) if os.environ.get(name)), "default")


class Environment(NamedTuple):
    """What else the environment says: the cloud's pairs, KServe's names, and what the SDKs leave to us.

    Attributes:
        pairs: bucket and path by scheme, as far as they are set.
        in_cluster: whether this is a pod.
        verify: False if KServe's S3_VERIFY_SSL says so.
        ca_bundle: the file of certificates to trust.
    """

    pairs: Mapping[str, tuple[str | None, str | None]]
    in_cluster: bool
    verify: bool
    ca_bundle: str | None


def environment() -> Environment:
    """Read the environment; an empty variable is an unset one."""
    common = _get("REQUESTS_CA_BUNDLE") or _get("CURL_CA_BUNDLE") or _get("SSL_CERT_FILE")
    return Environment(
        pairs={"gs": (_get("GCS_BUCKET"), _get("GCS_MODEL_PATH")), "s3": (_get("S3_BUCKET"), _get("S3_MODEL_PATH"))},
        in_cluster=_get("KUBERNETES_SERVICE_HOST") is not None,
        verify=is_truthy(_get("S3_VERIFY_SSL"), default=True),
        ca_bundle=common,
    )


def _get(name: str) -> str | None:
    return os.environ.get(name) or None


def source_and_dest(settings: Settings, environ: Environment) -> tuple[str, str]:
    """The pair that the environment names.

    Raises:
        ConfigError: it names none, half a one, or two.
    """
    source = settings.source or _cloud_source(environ)
    if not settings.dest:
        raise ConfigError(
            "The environment names no destination.",
            hint="Set LOCAL_MODEL_PATH (or MODELFETCH_DEST), or give SOURCE DEST.",
        )
    return source, settings.dest


def _cloud_source(environ: Environment) -> str:
    named = {scheme: pair for scheme, pair in environ.pairs.items() if any(pair)}
    if not named:
        raise ConfigError(
            "The environment names no model.",
            hint="Set GCS_BUCKET and GCS_MODEL_PATH, or S3_BUCKET and S3_MODEL_PATH, or MODELFETCH_SOURCE;"
            " and LOCAL_MODEL_PATH. Or give SOURCE DEST.",
        )
    if len(named) > 1:
        raise ConfigError(
            "Both GCS_* and S3_* name a model (GCS_BUCKET, S3_BUCKET).",
            hint="Unset one pair, or set MODELFETCH_SOURCE.",
        )
    ((scheme, (bucket, path)),) = named.items()
    cloud = {"gs": "GCS", "s3": "S3"}[scheme]
    if not bucket or not path:
        have, lack = ("BUCKET", "MODEL_PATH") if bucket else ("MODEL_PATH", "BUCKET")
        raise ConfigError(f"{cloud}_{have} is set, but {cloud}_{lack} is not.", hint=f"Set {cloud}_{lack} too.")
    bucket = bucket.removeprefix(f"{scheme}://").rstrip("/")
    return f"{scheme}://{bucket}/{path.lstrip('/')}"


def misspelt() -> list[tuple[str, str | None]]:
    """Variables with our prefix that mean nothing, each with the nearest one that does."""
    known = {name for field in Settings.model_fields for name in variables(field)}
    unknown = [
        name
        for name in os.environ
        if name.startswith(PREFIX) and name not in known and not _SERVICE_LINK.fullmatch(name.removeprefix(PREFIX))
    ]
    ours = [name.removeprefix(PREFIX) for name in known if name.startswith(PREFIX)]  # the prefix makes all look alike
    nearest = {name: difflib.get_close_matches(name.removeprefix(PREFIX), ours, n=1) for name in sorted(unknown)}
    return [(name, PREFIX + near[0] if near else None) for name, near in nearest.items()]


_SHOWN = ("AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ACCESS_KEY_ID", "AWS_ROLE_ARN", "AWS_CA_BUNDLE", "GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_CLOUD_PROJECT", "STORAGE_EMULATOR_HOST", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "S3_ENDPOINT", "S3_USE_HTTPS", "S3_VERIFY_SSL", "S3_USER_VIRTUAL_BUCKET")  # fmt: skip  # noqa: E501
_SECRET = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN", "AWS_CONTAINER_AUTHORIZATION_TOKEN")
_PASSWORD = re.compile(r"^(?:\w+://)?[^/?#@]*?:([^/?#]+)@")  # in an address, of a proxy or an endpoint
_USER_INFO = re.compile(r"//[^/]*@")
_PROXY_USER = re.compile(r"^(\w+://)?.*@")  # a proxy may be named without a scheme
_QUERY = re.compile(r"^(https?://[^?]*)\?.*", re.IGNORECASE)  # of a signed URL


def secrets() -> list[str]:
    """The secrets that the environment holds: no output may show them."""
    ours = [name for field in Settings.model_fields if _is_secret(field) for name in variables(field)]
    named = [value for name in (*_SECRET, *ours) if (value := _get(name))]
    return named + [found[1] for value in os.environ.values() if (found := _PASSWORD.match(value))]


def _is_secret(field: str) -> bool:
    return SecretStr in (Settings.model_fields[field].annotation, *get_args(Settings.model_fields[field].annotation))


def effective(settings: Settings, given: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Rows of (setting, value, where it came from), with what the SDKs will read; secrets masked."""
    rows = [(field, shown(field, getattr(settings, field)), origin(field, given)) for field in Settings.model_fields]
    named = ("GCS_BUCKET", "GCS_MODEL_PATH", "S3_BUCKET", "S3_MODEL_PATH", *_SHOWN)
    told = ((name, value) for name in named if (value := _get(name)))
    rows += [(name, _masked(value, proxy=name.endswith("_PROXY")), "environment") for name, value in told]
    rows += [(name, "**********", "environment") for name in _SECRET if _get(name)]
    return rows


def shown(field: str, value: object) -> str:
    """A setting's value as a person writes it, with its unit; pydantic masks the secret ones."""
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
            return _masked(str(value))


def _masked(value: str, *, proxy: bool = False) -> str:
    """A value without what authorises: a user's name and password, and the query of a URL."""
    value = _PROXY_USER.sub(r"\1***@", value) if proxy else _USER_INFO.sub("//***@", value)
    return _QUERY.sub(r"\1?***", value)
