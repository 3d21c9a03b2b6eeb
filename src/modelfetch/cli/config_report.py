"""Rows of `modelfetch config`: each effective setting with its origin, secrets masked."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from modelfetch.cli.environment import SECRET_FILE_VARIABLES, SECRET_VARIABLES, read_variable
from modelfetch.cli.redaction import mask_credentials
from modelfetch.cli.settings import Settings, find_origin, format_value
from modelfetch.safe_paths import is_path_like

_MASK = "**********"
_SHOWN_VARIABLES = ("GCS_BUCKET", "GCS_MODEL_PATH", "S3_BUCKET", "S3_MODEL_PATH", "AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ACCESS_KEY_ID", "AWS_ROLE_ARN", "AWS_CA_BUNDLE", "GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_CLOUD_PROJECT", "STORAGE_EMULATOR_HOST", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "S3_ENDPOINT", "S3_USE_HTTPS", "S3_VERIFY_SSL", "S3_USER_VIRTUAL_BUCKET")  # fmt: skip  # noqa: E501
_MAX_VALUE_COLUMNS = 60


class ConfigRow(NamedTuple):
    """Setting or variable, its value with secrets masked, and the value's origin."""

    name: str
    value: str
    origin: str


def list_config_rows(settings: Settings, flags: Mapping[str, Any]) -> list[ConfigRow]:
    """Return a row per setting, then a row per set variable of the SDKs and KServe."""
    rows = [
        ConfigRow(field, format_value(field, getattr(settings, field)), find_origin(field, flags))
        for field in Settings.model_fields
    ]
    rows += [
        ConfigRow(name, _mask_variable(name, value), "environment")
        for name in _SHOWN_VARIABLES
        if (value := read_variable(name))
    ]
    rows += [ConfigRow(name, _MASK, "environment") for name in SECRET_VARIABLES if read_variable(name)]
    return rows


def _mask_variable(name: str, value: str) -> str:
    """Mask user names and passwords in a variable's value; all of a key that stands where a path belongs."""
    if name in SECRET_FILE_VARIABLES and not is_path_like(value):
        return _MASK
    return mask_credentials(value, proxy=name.endswith("_PROXY"))


def config_as_text(rows: list[ConfigRow]) -> str:
    """Return the rows as aligned columns."""
    name_columns = max(len(row.name) for row in rows)
    value_columns = min(max(len(row.value) for row in rows), _MAX_VALUE_COLUMNS)
    return "\n".join(f"{row.name:<{name_columns}}  {row.value:<{value_columns}}  {row.origin}" for row in rows)


def config_as_dict(rows: list[ConfigRow]) -> dict[str, dict[str, str]]:
    """Return the JSON fields of the rows, by name."""
    return {row.name: {"value": row.value, "from": row.origin} for row in rows}
