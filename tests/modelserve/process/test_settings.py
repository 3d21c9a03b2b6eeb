import re
from pathlib import Path

import pytest

from modelserve.errors import ConfigError
from modelserve.process.settings import Settings, find_unknown_variables, read_settings


@pytest.fixture(autouse=True)
def model_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one setting that has no default."""
    monkeypatch.setenv("MODEL_PATH", "m")


def test_the_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every kind of value is taken from its variable."""
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
    """A flag that was given wins; one that was not leaves the variable."""
    monkeypatch.setenv("MODELSERVE_PORT", "9000")
    monkeypatch.setenv("MODELSERVE_HOST", "::")

    read = read_settings(port="9001", host=None)

    assert (read.port, read.host) == (9001, "::")


def test_an_empty_variable_is_an_unset_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A ConfigMap key without a value changes nothing."""
    monkeypatch.setenv("MODELSERVE_PORT", "")
    monkeypatch.setenv("MODEL_NAME", "")

    assert (read_settings().port, read_settings().model_name) == (8000, "")


def test_a_service_link_is_no_port(monkeypatch: pytest.MonkeyPatch) -> None:
    """What Kubernetes injects for a Service called modelserve does not crash the app, nor is it warned of."""
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


def test_a_misspelt_name_is_warned_of_with_the_nearest_one() -> None:
    """Names that are no setting are named; real ones and others' are not."""
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
def test_a_wrong_value_is_named_with_its_variable(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """The message says which variable, and what it holds."""
    monkeypatch.setenv(name, value)

    with pytest.raises(ConfigError, match=re.escape(f"{name}={value!r}: ")):
        read_settings()


def test_more_threads_than_requests_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads that nothing can reach are a mistake."""
    monkeypatch.setenv("MODELSERVE_THREADS", "2")
    monkeypatch.setenv("MODELSERVE_MAX_REQUESTS", "1")

    with pytest.raises(ConfigError, match=r"MAX_REQUESTS \(1\) is less than THREADS \(2\)"):
        read_settings()


def test_a_missing_model_path_is_said_plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one setting that has no default is asked for by name."""
    monkeypatch.delenv("MODEL_PATH")

    with pytest.raises(ConfigError, match="MODEL_PATH is not set"):
        read_settings()


@pytest.mark.parametrize(
    ("text", "size"), [("10", 10), ("1k", 1000), ("1Ki", 1024), ("1.5MiB", 1572864), ("2GB", 2 * 10**9)]
)
def test_sizes_take_units(text: str, size: int) -> None:
    """Sizes are written as Kubernetes and people write them."""
    assert size == read_settings(max_body=text).max_body


@pytest.mark.parametrize(("text", "seconds"), [("10", 10), ("1.5s", 1.5), ("200ms", 0.2), ("2m", 120), ("1h", 3600)])
def test_times_take_units(text: str, seconds: float) -> None:
    """Times are written with a unit or in seconds."""
    assert seconds == pytest.approx(read_settings(drain=text).drain)


def test_every_setting_has_a_description() -> None:
    """Nothing in --help is left unexplained."""
    assert all(field.description for field in Settings.model_fields.values())
