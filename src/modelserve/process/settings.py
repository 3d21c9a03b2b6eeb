"""Settings of modelserve, read from the environment; no other module reads settings.

An empty variable counts as unset. Kubernetes injects variables for every Service of a namespace; the variables of a
Service called `modelserve` (`MODELSERVE_PORT=tcp://10.0.0.1:80`) resemble settings and are ignored.
"""

import difflib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from modelserve.errors import ConfigError

PREFIX = "MODELSERVE_"
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?", re.IGNORECASE)
_TIME = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h)?")
_SECONDS = {"ms": 0.001, "s": 1, None: 1, "m": 60, "h": 3600}
_SERVICE_LINK_VALUE = re.compile(r"(tcp|udp|sctp)://")
_SERVICE_LINK_NAME = re.compile(r"_SERVICE_(HOST|PORT)(_\w+)?$|_PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?$")


def _parse_size(value: object) -> object:
    """Parse bytes from `16Mi`, `2GB` or a plain number."""
    if not (isinstance(value, str) and (found := _SIZE.fullmatch(value.strip()))):
        return value
    number, unit, binary = found.groups()
    step = 1024 if binary else 1000
    return int(float(number) * step ** " kmgt".index(unit.lower() or " "))


def _parse_seconds(value: object) -> object:
    """Parse seconds from `30s`, `5m`, `200ms` or a plain number."""
    if not (isinstance(value, str) and (found := _TIME.fullmatch(value.strip()))):
        return value
    return float(found[1]) * _SECONDS[found[2]]


def _count_cpus() -> int:
    """Return the number of CPUs available to this process."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


Size = Annotated[int, BeforeValidator(_parse_size), Field(gt=0)]
Seconds = Annotated[float, BeforeValidator(_parse_seconds), Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(gt=0)]


class Settings(BaseSettings):
    """Settings with defaults; the description of a field is a line of `--help`."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, frozen=True, extra="ignore")

    model_path: Path = Field(
        validation_alias="MODEL_PATH", description="model file, or the directory that holds one; required"
    )
    model_name: str = Field(
        default="",
        validation_alias="MODEL_NAME",
        pattern=r"^[^/\x00-\x1f]*$",
        description="name in URLs and metrics; default: that of the model file's directory",
    )
    host: str = Field(default="127.0.0.1", description="address to listen on; in a pod 0.0.0.0, or :: for IPv6")
    port: int = Field(default=8000, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    require_receipt: bool = Field(default=False, description="refuse a model without a receipt of modelfetch")
    allow_version_mismatch: bool = Field(
        default=False, description="load a model saved by another version of scikit-learn"
    )
    max_body: Size = Field(default=16 * 1024**2, description="largest request body, in bytes or like 16Mi")
    max_rows: Count = Field(default=100_000, description="most rows in one request")
    max_requests: Count = Field(default=64, description="predictions in hand at once; more are answered 503")
    threads: Count = Field(
        default_factory=lambda: min(4, _count_cpus()),
        description="predictions computed at once; default: the CPUs, at most 4",
    )
    body_timeout: Seconds = Field(default=30.0, description="time for a request body to arrive")
    keep_alive: Seconds = Field(default=65.0, description="how long an idle connection is kept open")
    drain: Seconds = Field(default=5.0, description="how long to serve on after SIGTERM, while not ready")
    stop_timeout: Seconds = Field(default=20.0, description="after that, time for open requests to end")
    log_format: Literal["auto", "json", "text"] = Field(
        default="auto", description="auto: text on a terminal, JSON lines elsewhere"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="least level logged")
    termination_log: Path = Field(
        default=Path("/dev/termination-log"), description="existing file that takes the reason of a failed start"
    )

    @field_validator("port", mode="before")
    @classmethod
    def _ignore_service_link(cls, value: object) -> object:
        """Ignore the MODELSERVE_PORT injected by Kubernetes for a Service."""
        return 8000 if isinstance(value, str) and _SERVICE_LINK_VALUE.match(value) else value

    @field_validator("log_format", "log_level", mode="before")
    @classmethod
    def _lower_case(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value

    @model_validator(mode="after")
    def _check_threads(self) -> Self:
        if self.max_requests < self.threads:
            raise ValueError(f"MAX_REQUESTS ({self.max_requests}) is less than THREADS ({self.threads})")
        return self


def get_variable(field: str) -> str:
    """Return the environment variable of a field."""
    alias = Settings.model_fields[field].validation_alias
    return alias if isinstance(alias, str) else PREFIX + field.upper()


def read_settings(**flags: Any) -> Settings:  # noqa: ANN401  flags of every type
    """Read the settings: flags (None is unset) beat the environment, the environment beats the defaults.

    Raises:
        ConfigError: a value is missing or wrong; the message names the variable.
    """
    try:
        return Settings(**{name: value for name, value in flags.items() if value is not None})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = str(first["loc"][0]) if first["loc"] else ""
        if first["type"] == "missing":
            raise ConfigError("MODEL_PATH is not set.", hint="Set it to the model file or to its directory.") from None
        reason = first["msg"].removeprefix("Value error, ")
        shown = get_variable(name) if name in Settings.model_fields else name or PREFIX
        value = f"={str(first['input'])[:80]!r}" if name else ""
        raise ConfigError(f"{shown}{value}: {reason}.", hint="See modelserve --help for what it takes.") from None


def find_unknown_variables(environment: Mapping[str, str]) -> list[str]:
    """Return a warning for each unknown `MODELSERVE_*` variable, with the nearest known name."""
    names = {name for name in map(get_variable, Settings.model_fields) if name.startswith(PREFIX)}
    warnings = []
    for name in sorted(environment):
        if not name.startswith(PREFIX) or name in names or _SERVICE_LINK_NAME.search(name):
            continue
        near = difflib.get_close_matches(name.removeprefix(PREFIX), (n.removeprefix(PREFIX) for n in names), n=1)
        guess = f"; did you mean {PREFIX}{near[0]}?" if near else "."
        warnings.append(f"{name} is not a setting and does nothing{guess}")
    return warnings
