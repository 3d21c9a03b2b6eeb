"""Settings: parsing, precedence of flags over variables over defaults, errors that name flag or variable."""

from typing import Any

import pytest

from modelfetch.cli.settings import Settings, find_origin, list_variables, load_settings
from modelfetch.errors import ConfigError, UsageError

SHA = "ab" * 32
VALUES: dict[str, tuple[str, str]] = {  # two values other than the default, by setting
    "source": ("s3://a/b", "gs://c/d"),
    "dest": ("/a", "/b"),
    "retries": ("5", "6"),
    "retry_wait": ("5s", "2m"),
    "stall_timeout": ("5", "250ms"),
    "timeout": ("1h", "90"),
    "sha256": (SHA, "cd" * 32),
    "extract": ("false", "0"),
    "include": ("*.bin", "a,b"),
    "exclude": ("*.bin", "a,b"),
    "max_bytes": ("5", "6Gi"),
    "max_files": ("5", "6"),
    "max_ratio": ("5", "6.5"),
    "publish": ("exchange", "entries"),
    "memory": ("5", "128Mi"),
    "connections": ("5", "6"),
    "anonymous": ("true", "1"),
    "bearer_token": ("t0ken-a", "t0ken-b"),
    "recheck": ("true", "1"),
    "require_manifest": ("true", "1"),
    "verify_signature": ("true", "1"),
    "public_key": ("/a", "/b"),
    "certificate_chain": ("/a", "/b,/c"),
    "identity": ("a@b.c", "d@e.f"),
    "identity_provider": ("https://a.b", "https://c.d"),
    "trust_config": ("/a", "/b"),
    "sign": ("true", "1"),
    "private_key": ("/a", "/b"),
    "private_key_password": ("s3cret-a", "s3cret-b"),
    "termination_log": ("/a", "/b"),
    "log_format": ("json", "text"),
    "log_level": ("debug", "error"),
    "progress": ("off", "lines"),
}


def test_every_setting_has_values_in_this_module() -> None:
    """A new setting needs two values in `VALUES`."""
    assert set(VALUES) == set(Settings.model_fields)


@pytest.mark.parametrize("field", Settings.model_fields)
def test_flag_beats_variable_beats_default(monkeypatch: pytest.MonkeyPatch, field: str) -> None:
    """Each variable of a setting works, the MODELFETCH_* name first; an empty variable is unset."""
    first, second = VALUES[field]
    default = getattr(load_settings({}), field)
    variables = list_variables(field)
    assert variables[0] == f"MODELFETCH_{field.upper()}"

    for name in reversed(variables):
        monkeypatch.setenv(name, first)
        from_variable = getattr(load_settings({}), field)
        assert from_variable != default
        assert find_origin(field, {}) == name
    flags = {field: second}
    assert getattr(load_settings(flags), field) == getattr(Settings(**{field: second}), field)  # type: ignore[arg-type]
    assert find_origin(field, flags) == "flag"
    for name in variables:
        monkeypatch.setenv(name, "")
    assert getattr(load_settings({}), field) == default
    assert find_origin(field, {}) == "default"


def test_modelfetch_variable_beats_its_alias(monkeypatch: pytest.MonkeyPatch) -> None:
    """MODELFETCH_DEST beats LOCAL_MODEL_PATH, unless empty."""
    monkeypatch.setenv("MODELFETCH_DEST", "/first")
    monkeypatch.setenv("LOCAL_MODEL_PATH", "/second")
    assert load_settings({}).dest == "/first"

    monkeypatch.setenv("MODELFETCH_DEST", "")
    assert load_settings({}).dest == "/second"


@pytest.mark.parametrize(
    ("text", "size"),
    [
        *(("1", 1), ("64Mi", 64 * 1024**2), ("64MiB", 64 * 1024**2), ("2GB", 2_000_000_000), ("2G", 2_000_000_000)),
        *(("1.5Ki", 1536), ("5 kB", 5000), ("10b", 10), ("1ti", 1024**4), (" 7Ei ", 7 * 1024**6), ("1P", 10**15)),
    ],
)
def test_size_takes_binary_and_decimal_suffixes(text: str, size: int) -> None:
    """Kubernetes' and SI suffixes parse, in either case."""
    assert load_settings({"memory": text}).memory == size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30", 30), ("30s", 30), ("5m", 300), ("1.5h", 5400), ("250ms", 0.25), ("0.5", 0.5), (" 2 S ", 2)],
)
def test_time_takes_units(text: str, seconds: float) -> None:
    """A time without a unit is in seconds."""
    assert load_settings({"timeout": text}).timeout == seconds


@pytest.mark.parametrize(
    ("value", "patterns"),
    [
        ("*.bin", ("*.bin",)),
        ("*.bin, w/* ,", ("*.bin", "w/*")),
        ('["*.bin", "a,b"]', ("*.bin", "a,b")),
        (' [ "*.bin" ]', ("*.bin",)),
        ("[]", ()),
        ("[ab]*.bin", ("[ab]*.bin",)),
        ("[0-9]*,x", ("[0-9]*", "x")),
        ("[01]", ("[01]",)),
        (["*.bin", "a,b"], ("*.bin", "a", "b")),
    ],
)
def test_patterns_take_commas_json_and_repeated_flags(value: Any, patterns: tuple[str, ...]) -> None:
    """Comma-separated text, KServe's JSON list and repeated flags parse; a glob may begin with a bracket."""
    assert load_settings({"include": value}).include == patterns


@pytest.mark.parametrize("value", [SHA, SHA.upper(), f"sha256:{SHA}", f" {SHA}\n"])
def test_pin_is_the_same_in_every_spelling(value: str) -> None:
    """The spellings of sha256sum, receipts and people give the same digits."""
    assert load_settings({"sha256": value}).sha256 == SHA


INVALID = [
    *(("retries", "x"), ("retries", "0"), ("retries", "1.5"), ("retry_wait", "0"), ("retry_wait", "-1")),
    *(("retry_wait", "soon"), ("timeout", "5 weeks"), ("stall_timeout", "0s"), ("sha256", "abc"), ("sha256", "z" * 64)),
    *(("extract", "maybe"), ("include", '["*.bin"'), ("exclude", '[""x]'), ("max_bytes", "0"), ("max_bytes", "many")),
    *(
        ("max_files", "0"),
        ("max_ratio", "0.5"),
        ("memory", "64Zi"),
        ("memory", "-5"),
        ("memory", "0"),
        ("progress", "x"),
    ),
    *(("max_bytes", "9" * 400), ("memory", "9000000000000Gi"), ("max_bytes", "9" * 5000), ("timeout", "9" * 400)),
    *(("timeout", "99999999999"), ("stall_timeout", "100000000h"), ("retry_wait", "9" * 5000)),
    *(("include", '["", ' + "[" * 100_000), ("max_files", "9" * 5000), ("max_ratio", "nan"), ("retries", "1e3")),
    *(("connections", "0"), ("connections", "65"), ("anonymous", "2"), ("log_format", "xml"), ("log_level", "INFO")),
]


@pytest.mark.parametrize(("field", "value"), INVALID)
def test_invalid_flag_is_a_usage_error(field: str, value: str) -> None:
    """The message names the flag and quotes the value."""
    with pytest.raises(UsageError) as caught:
        load_settings({field: value})

    assert caught.value.message.startswith(f"--{field.replace('_', '-')} ")
    assert value[:50] in caught.value.message  # the beginning of a long value
    assert caught.value.hint


@pytest.mark.parametrize(("field", "value"), INVALID)
def test_invalid_variable_is_a_config_error(monkeypatch: pytest.MonkeyPatch, field: str, value: str) -> None:
    """The message names the variable in use, also an alias."""
    for name in list_variables(field):
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            with pytest.raises(ConfigError) as caught:
                load_settings({})

        assert caught.value.message.startswith(f"{name} ")
        assert caught.value.hint


def test_kserve_variables_set_patterns_and_anonymity(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variables of KServe's storage initializer set `include`, `exclude` and `anonymous`."""
    monkeypatch.setenv("STORAGE_ALLOW_PATTERNS", '["*.bin"]')
    monkeypatch.setenv("STORAGE_IGNORE_PATTERNS", '["*.md", "x"]')
    monkeypatch.setenv("awsAnonymousCredential", "true")

    settings = load_settings({})
    assert (settings.include, settings.exclude, settings.anonymous) == (("*.bin",), ("*.md", "x"), True)
