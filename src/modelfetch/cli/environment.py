"""Environment variables outside the settings: the clouds' pairs, names common to all sources, secrets, typos."""

import difflib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from modelfetch.cli.settings import PREFIX, Settings, is_secret, list_variables
from modelfetch.errors import ConfigError
from modelfetch.safe_paths import is_path_like
from modelfetch.sources import mask_address
from modelfetch.uri import find_argument_flaw

TERMINATION_LOG = Path("/dev/termination-log")
SECRET_VARIABLES = (
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_SECURITY_TOKEN",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN",
)
# Variables whose value names a file with a secret, or a file beside one; the secret itself is put there by mistake.
SECRET_FILE_VARIABLES = (
    "GOOGLE_APPLICATION_CREDENTIALS",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_CONFIG_FILE",
    "BOTO_CONFIG",
    "CLOUDSDK_CONFIG",
    "AWS_CA_BUNDLE",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "SSL_CERT_FILE",
    f"{PREFIX}PRIVATE_KEY",
    f"{PREFIX}PUBLIC_KEY",
)

_ADDRESS_VARIABLES = (
    *(f"{PREFIX}SOURCE", f"{PREFIX}DEST", "LOCAL_MODEL_PATH"),
    *("GCS_BUCKET", "GCS_MODEL_PATH", "S3_BUCKET", "S3_MODEL_PATH"),
)
_PASSWORD = re.compile(r"^(?:\w+://)?[^/?#@]*?:([^/?#]+)@")  # in the address of a proxy or an endpoint
# Variables that Kubernetes injects for a Service called modelfetch: https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
_SERVICE_LINK = re.compile(r"(.+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_\w+)?)")


class Environment(NamedTuple):
    """Facts from variables outside the settings: the clouds' pairs and names common to all sources.

    Attributes:
        pairs: bucket and path by scheme; None for an unset variable.
        in_cluster: whether the process runs in a pod.
        ca_bundle: file of trusted certificates, unless a source has its own.
    """

    pairs: Mapping[str, tuple[str | None, str | None]]
    in_cluster: bool
    ca_bundle: str | None


def read_environment() -> Environment:
    """Read the environment; an empty variable is unset."""
    common = read_variable("REQUESTS_CA_BUNDLE") or read_variable("CURL_CA_BUNDLE") or read_variable("SSL_CERT_FILE")
    return Environment(
        pairs={
            "gs": (read_variable("GCS_BUCKET"), read_variable("GCS_MODEL_PATH")),
            "s3": (read_variable("S3_BUCKET"), read_variable("S3_MODEL_PATH")),
        },
        in_cluster=read_variable("KUBERNETES_SERVICE_HOST") is not None,
        ca_bundle=common,
    )


def read_variable(name: str) -> str | None:
    """Return a variable's value; None if unset or empty."""
    return os.environ.get(name) or None


def source_and_dest(settings: Settings, environment: Environment) -> tuple[str, str]:
    """Return source and destination from the environment.

    Raises:
        ConfigError: no model, several models, half a pair, no destination; or a variable is blank, ends with a line
            break, or holds a variable that was not expanded.
    """
    for name in _ADDRESS_VARIABLES:
        if (value := read_variable(name)) and (flaw := find_argument_flaw(value)):
            raise ConfigError(f"{name} {flaw[0]}: {mask_address(value)!r}.", hint=flaw[1])
    source = settings.source or _cloud_source(environment)
    if not settings.dest:
        raise ConfigError(
            "The environment names no destination.",
            hint="Set LOCAL_MODEL_PATH (or MODELFETCH_DEST), or give SOURCE DEST.",
        )
    return source, settings.dest


def _cloud_source(environment: Environment) -> str:
    pairs = {scheme: pair for scheme, pair in environment.pairs.items() if any(pair)}
    if not pairs:
        raise ConfigError(
            "The environment names no model.",
            hint="Set GCS_BUCKET and GCS_MODEL_PATH, or S3_BUCKET and S3_MODEL_PATH, or MODELFETCH_SOURCE;"
            " and LOCAL_MODEL_PATH. Or give SOURCE DEST.",
        )
    if len(pairs) > 1:
        raise ConfigError(
            "Both GCS_* and S3_* name a model (GCS_BUCKET, S3_BUCKET).",
            hint="Unset one pair, or set MODELFETCH_SOURCE.",
        )
    ((scheme, (bucket, path)),) = pairs.items()
    cloud = {"gs": "GCS", "s3": "S3"}[scheme]
    if not bucket or not path:
        present, missing = ("BUCKET", "MODEL_PATH") if bucket else ("MODEL_PATH", "BUCKET")
        message = f"{cloud}_{present} is set, but {cloud}_{missing} is not."
        raise ConfigError(message, hint=f"Set {cloud}_{missing} too.")
    bucket = bucket.removeprefix(f"{scheme}://").rstrip("/")
    return f"{scheme}://{bucket}/{path.lstrip('/')}"


def find_termination_log() -> Path | None:
    """Return the termination log for failures before any flag is read; the cluster's file only if writable."""
    path = read_variable(f"{PREFIX}TERMINATION_LOG")
    if path:
        return Path(path)
    return TERMINATION_LOG if os.access(TERMINATION_LOG, os.W_OK) else None


def find_misspelt_names() -> list[tuple[str, str | None]]:
    """Return unknown variables with our prefix, each with the nearest known name."""
    known = {name for field in Settings.model_fields for name in list_variables(field)}
    unknown = [
        name
        for name in os.environ
        if name.startswith(PREFIX) and name not in known and not _SERVICE_LINK.fullmatch(name.removeprefix(PREFIX))
    ]
    # Compared without the prefix, which would make all names look alike.
    suffixes = [name.removeprefix(PREFIX) for name in known if name.startswith(PREFIX)]
    nearest = {name: difflib.get_close_matches(name.removeprefix(PREFIX), suffixes, n=1) for name in sorted(unknown)}
    return [(name, PREFIX + matches[0] if matches else None) for name, matches in nearest.items()]


def list_secrets() -> list[str]:
    """Return the secrets in the environment, for removal from every output."""
    settings = [name for field in Settings.model_fields if is_secret(field) for name in list_variables(field)]
    secrets = [value for name in (*SECRET_VARIABLES, *settings) if (value := read_variable(name))]
    secrets += [value for name in SECRET_FILE_VARIABLES if (value := read_variable(name)) and not is_path_like(value)]
    return secrets + [match[1] for value in os.environ.values() if (match := _PASSWORD.match(value))]
