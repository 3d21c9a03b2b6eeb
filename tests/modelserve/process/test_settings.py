import re
from pathlib import Path

import pytest

from modelserve.errors import ConfigError
from modelserve.process.settings import Settings, find_unknown_variables, read_settings


@pytest.fixture(autouse=True)
def model_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set MODEL_PATH, the only setting without a default."""
    monkeypatch.setenv("MODEL_PATH", "m")


def test_each_variable_sets_the_field(monkeypatch: pytest.MonkeyPatch) -> None:
    """Values of every type are read from the environment."""
    for name, value in {
        "MODEL_NAME": "churn",
        "MODELSERVE_PORT": "9000",
        "MODELSERVE_REQUIRE_RECEIPT": "true",
        "MODELSERVE_MAX_BODY": "2Mi",
        "MODELSERVE_DRAIN": "1m",
        "MODELSERVE_LOG_FORMAT": "JSON",
    }.items():
        monkeypatch.setenv(name, value)

    read = read_settings()

    assert (read.model_path, read.model_name, read.port) == (Path("m"), "churn", 9000)
    assert (read.require_receipt, read.max_body, read.drain, read.log_format) == (True, 2 * 1024**2, 60.0, "json")


def test_flags_beat_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A given flag wins over the variable; an absent flag leaves the variable."""
    monkeypatch.setenv("MODELSERVE_PORT", "9000")
    monkeypatch.setenv("MODELSERVE_HOST", "::")

    read = read_settings(port="9001", host=None)

    assert (read.port, read.host) == (9001, "::")


def test_an_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    """A ConfigMap key without a value leaves the default."""
    monkeypatch.setenv("MODELSERVE_PORT", "")
    monkeypatch.setenv("MODEL_NAME", "")

    assert (read_settings().port, read_settings().model_name) == (8000, "")


def test_service_links_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables injected for a Service called modelserve neither set the port nor cause warnings."""
    links = {
        "MODELSERVE_PORT": "tcp://10.0.0.1:80",
        "MODELSERVE_PORT_80_TCP": "tcp://10.0.0.1:80",
        "MODELSERVE_PORT_80_TCP_ADDR": "10.0.0.1",
        "MODELSERVE_SERVICE_HOST": "10.0.0.1",
        "MODELSERVE_SERVICE_PORT_HTTP": "80",
        "MODELSERVE_CANARY_SERVICE_HOST": "10.0.0.2",
    }
    for name, value in links.items():
        monkeypatch.setenv(name, value)

    assert read_settings().port == 8000
    assert find_unknown_variables(links) == []


def test_an_unknown_variable_is_reported_with_the_nearest_name() -> None:
    """Unknown MODELSERVE_ variables are reported; known and foreign variables are not."""
    warnings = find_unknown_variables(
        {"MODELSERVE_MAX_ROW": "1", "MODELSERVE_PORT": "1", "MODELSERVE_ZZZ": "1", "HOME": "/"}
    )

    assert warnings == [
        "MODELSERVE_MAX_ROW is not a setting and does nothing; did you mean MODELSERVE_MAX_ROWS?",
        "MODELSERVE_ZZZ is not a setting and does nothing.",
    ]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MODELSERVE_PORT", "http"),
        ("MODELSERVE_PORT", "70000"),
        ("MODELSERVE_MAX_BODY", "lots"),
        ("MODELSERVE_MAX_ROWS", "0"),
        ("MODELSERVE_DRAIN", "-1"),
        ("MODELSERVE_DRAIN", "inf"),
        ("MODELSERVE_LOG_FORMAT", "xml"),
        ("MODEL_NAME", "a/b"),
    ],
)
def test_a_wrong_value_is_reported_with_the_variable(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """A wrong value is a ConfigError with the name of the variable and the value."""
    monkeypatch.setenv(name, value)

    with pytest.raises(ConfigError, match=re.escape(f"{name}={value!r}: ")):
        read_settings()


def test_more_threads_than_requests_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads beyond the number of admitted requests could never work: ConfigError."""
    monkeypatch.setenv("MODELSERVE_THREADS", "2")
    monkeypatch.setenv("MODELSERVE_MAX_REQUESTS", "1")

    with pytest.raises(ConfigError, match=r"MAX_REQUESTS \(1\) is less than THREADS \(2\)"):
        read_settings()


def test_a_missing_model_path_is_a_config_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """MODEL_PATH has no default; without a value the message asks for the variable."""
    monkeypatch.delenv("MODEL_PATH")

    with pytest.raises(ConfigError, match="MODEL_PATH is not set"):
        read_settings()


@pytest.mark.parametrize(
    ("text", "size"), [("10", 10), ("1k", 1000), ("1Ki", 1024), ("1.5MiB", 1572864), ("2GB", 2 * 10**9)]
)
def test_sizes_accept_units(text: str, size: int) -> None:
    """Sizes are parsed with decimal and binary units."""
    assert size == read_settings(max_body=text).max_body


@pytest.mark.parametrize(("text", "seconds"), [("10", 10), ("1.5s", 1.5), ("200ms", 0.2), ("2m", 120), ("1h", 3600)])
def test_times_accept_units(text: str, seconds: float) -> None:
    """Times are parsed with units, or as plain seconds."""
    assert seconds == pytest.approx(read_settings(drain=text).drain)


def test_every_setting_has_a_description() -> None:
    """Every setting has a description for `--help`."""
    assert all(field.description for field in Settings.model_fields.values())
