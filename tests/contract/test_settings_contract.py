"""Both packages parse sizes and times alike, although neither package imports the other."""

from collections.abc import Callable

import pytest
from pydantic import ValidationError

from modelfetch.cli import settings as fetch_settings
from modelserve.errors import ConfigError
from modelserve.process.settings import read_settings

Parser = Callable[[str], float]


def fetch_size(text: str) -> float:
    """Parse a size with the settings of modelfetch."""
    return fetch_settings.Settings.model_validate({"memory": text}).memory


def fetch_seconds(text: str) -> float:
    """Parse a time with the settings of modelfetch."""
    return fetch_settings.Settings.model_validate({"retry_wait": text}).retry_wait


def serve_size(text: str) -> float:
    """Parse a size with the settings of modelserve."""
    return read_settings(MODEL_PATH="m", max_body=text).max_body


def serve_seconds(text: str) -> float:
    """Parse a time with the settings of modelserve."""
    return read_settings(MODEL_PATH="m", drain=text).drain


SIZES = (fetch_size, serve_size)
TIMES = (fetch_seconds, serve_seconds)
DIGITS = "9" * 400


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1", 1), (" 10 ", 10), ("10b", 10), ("1k", 1000), ("1K", 1000), ("1Ki", 1024), ("1.5 MiB", 1_572_864),
        ("2GB", 2 * 10**9), ("1Ti", 2**40), ("1P", 10**15), ("2Ei", 2**61), ("8Ei", 2**63), ("1.9", 1),
    ],
)  # fmt: skip
@pytest.mark.parametrize("parse", SIZES)
def test_both_packages_accept_the_same_sizes(parse: Parser, text: str, size: int) -> None:
    """A size with or without a unit has one meaning in both packages."""
    assert parse(text) == size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("10", 10), (" 1.5s ", 1.5), ("200ms", 0.2), ("2 m", 120), ("2M", 120), ("1h", 3600), ("87600h", 315_360_000)],
)
@pytest.mark.parametrize("parse", TIMES)
def test_both_packages_accept_the_same_times(parse: Parser, text: str, seconds: float) -> None:
    """A time with or without a unit has one meaning in both packages."""
    assert parse(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text",
    [
        "lots", "0", "0.5", "-1", "+1", "1e3", "1_000", "0x10", "1,5", "1 000", ".5", "5.", "Mi", "1X", "1MiMi", "nan",
        "inf", "9Ei", "1e400", DIGITS, f"{DIGITS}Ei", f"1.{DIGITS}X",
    ],
)  # fmt: skip
@pytest.mark.parametrize("parse", SIZES)
def test_both_packages_refuse_the_same_sizes(parse: Parser, text: str) -> None:
    """A malformed size, or a size above 8 EiB, is a configuration error, and never another exception."""
    with pytest.raises((ValidationError, ConfigError)):
        parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "soon", "-1", "+1", "1e3", "1_0", "1,5", "1 0", ".5", "5.", "s", "1d", "1min", "1ss", "1h30m", "nan", "inf",
        "87601h", DIGITS, f"{DIGITS}h", f"0.{DIGITS}x",
    ],
)  # fmt: skip
@pytest.mark.parametrize("parse", TIMES)
def test_both_packages_refuse_the_same_times(parse: Parser, text: str) -> None:
    """A malformed time, or a time above ten years, is a configuration error, and never another exception."""
    with pytest.raises((ValidationError, ConfigError)):
        parse(text)
