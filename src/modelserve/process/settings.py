"""Settings of modelserve, read from the environment; no other module reads settings.

An empty variable counts as unset. Kubernetes injects variables for every Service of a namespace; the variables of a
Service called `modelserve` (`MODELSERVE_PORT=tcp://10.0.0.1:80`) resemble settings and are ignored.
"""

import contextlib
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
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgtpe]?)(i?)b?", re.IGNORECASE)
_TIME = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|)")
_MAX_BYTES, _MAX_SECONDS = 2**63, 10 * 365 * 86_400  # sockets and timers accept at most some 290 years
_SECONDS_PER_UNIT = {"ms": 0.001, "": 1, "s": 1, "m": 60, "h": 3600}
_SERVICE_LINK_VALUE = re.compile(r"(tcp|udp|sctp)://")
_SERVICE_LINK_NAME = re.compile(r"_SERVICE_(HOST|PORT)(_\w+)?$|_PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?$")


def _parse_size(value: object) -> object:
    """Parse bytes from `16Mi`, `2GB` or a plain number; modelfetch accepts the same syntax."""
    if not isinstance(value, str):
        return value
    match = _SIZE.fullmatch(value.strip())
    if not match:
        raise ValueError("write bytes, or a size such as 16Mi or 2GB")
    number, unit, binary = match.groups()
    size = float(number) * (1024 if binary else 1000) ** " kmgtpe".index(unit.lower() or " ")
    if size > _MAX_BYTES:
        raise ValueError("that is more than any disk has")
    return int(size)


def _parse_seconds(value: object) -> object:
    """Parse seconds from `30s`, `5m`, `200ms` or a plain number; modelfetch accepts the same syntax."""
    if not isinstance(value, str):
        return value
    match = _TIME.fullmatch(value.strip().lower())
    if not match:
        raise ValueError("write seconds, or a time such as 30s or 5m")
    seconds = float(match[1]) * _SECONDS_PER_UNIT[match[2]]
    if seconds > _MAX_SECONDS:
        raise ValueError("that is more than ten years")
    return seconds


def _count_cpus() -> int:
    """Return the number of CPUs available to this process."""
    with contextlib.suppress(OSError, AttributeError):  # a seccomp filter refuses; macOS and Windows lack the call
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


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
        description="name in URLs and metrics; default: the name of the model file's directory",
    )
    host: str = Field(default="127.0.0.1", description="address to listen on; in a pod 0.0.0.0, or :: for IPv6")
    port: int = Field(default=8000, ge=0, le=65535, description="port to listen on; 0 selects a free port")
    require_receipt: bool = Field(default=False, description="refuse a model without a receipt of modelfetch")
    allow_version_mismatch: bool = Field(
        default=False, description="load a model saved by a different version of scikit-learn"
    )
    max_body: Size = Field(default=16 * 1024**2, description="largest request body, in bytes or with a unit, like 16Mi")
    max_rows: Count = Field(default=100_000, description="maximum number of rows in a request")
    max_requests: Count = Field(
        default=64, description="maximum number of concurrent prediction requests; further requests are answered 503"
    )
    threads: Count = Field(
        default_factory=lambda: min(4, _count_cpus()),
        description="predictions computed in parallel; default: the number of CPUs, at most 4",
    )
    body_timeout: Seconds = Field(default=30.0, description="deadline for the arrival of a request body")
    keep_alive: Seconds = Field(default=65.0, description="lifetime of an idle connection")
    drain: Seconds = Field(
        default=5.0, description="grace period after SIGTERM: requests are answered, readiness is refused"
    )
    stop_timeout: Seconds = Field(default=20.0, description="time for open requests to end after the grace period")
    log_format: Literal["auto", "json", "text"] = Field(
        default="auto", description="log format; auto: text on a terminal, JSON lines elsewhere"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="log this level and above"
    )
    termination_log: Path = Field(
        default=Path("/dev/termination-log"), description="existing file for the reason of a failed start"
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
