"""Flags beat the environment, the environment beats the defaults; and whatever makes no sense is named."""

import os
from typing import Any

import pytest
from typer.testing import CliRunner

from modelfetch.cli import settings
from modelfetch.cli.app import app
from modelfetch.cli.settings import Settings
from modelfetch.errors import ConfigError, UsageError
from modelfetch.net.connection_pool import NetworkOptions
from modelfetch.sources import SourceOptions, find_spec, parse_uri

SHA = "ab" * 32
GIVEN: dict[str, tuple[str, str]] = {  # two values of each setting that are not its default
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


def test_every_setting_is_tried_here() -> None:
    """A new one needs values above."""
    assert set(GIVEN) == set(Settings.model_fields)


@pytest.mark.parametrize("field", Settings.model_fields)
def test_flags_beat_the_environment_and_that_the_defaults(monkeypatch: pytest.MonkeyPatch, field: str) -> None:
    """By each of its variables, ours first; an empty one is unset."""
    first, second = GIVEN[field]
    default = getattr(settings.load({}), field)
    variables = settings.variables(field)
    assert variables[0] == f"MODELFETCH_{field.upper()}"

    for name in reversed(variables):
        monkeypatch.setenv(name, first)
        from_variable = getattr(settings.load({}), field)
        assert from_variable != default
        assert settings.origin(field, {}) == name
    given = {field: second}
    assert getattr(settings.load(given), field) == getattr(Settings(**{field: second}), field)  # type: ignore[arg-type]
    assert settings.origin(field, given) == "flag"
    for name in variables:
        monkeypatch.setenv(name, "")
    assert getattr(settings.load({}), field) == default
    assert settings.origin(field, {}) == "default"


def test_of_two_variables_ours_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless it is empty."""
    monkeypatch.setenv("MODELFETCH_DEST", "/ours")
    monkeypatch.setenv("LOCAL_MODEL_PATH", "/theirs")
    assert settings.load({}).dest == "/ours"

    monkeypatch.setenv("MODELFETCH_DEST", "")
    assert settings.load({}).dest == "/theirs"


def test_every_setting_has_a_flag_a_variable_and_a_description() -> None:
    """Named alike; a secret has no flag, for `ps` would show it."""
    env = {"COLUMNS": "300", "TERM": "dumb", "NO_COLOR": "1"}
    told = "".join(CliRunner().invoke(app, [command, "--help"], env=env).output for command in ("pull", "push"))

    for field, info in Settings.model_fields.items():
        assert info.description
        shown = f"--{field.replace('_', '-')}" in told, f"[{settings.variables(field)[0]}]" in told
        assert shown == ((False, False) if field in settings.WITHOUT_FLAG else (True, True)), field


@pytest.mark.parametrize(
    ("text", "size"),
    [
        *(("1", 1), ("64Mi", 64 * 1024**2), ("64MiB", 64 * 1024**2), ("2GB", 2_000_000_000), ("2G", 2_000_000_000)),
        *(("1.5Ki", 1536), ("5 kB", 5000), ("10b", 10), ("1ti", 1024**4), (" 7Ei ", 7 * 1024**6), ("1P", 10**15)),
    ],
)
def test_sizes(text: str, size: int) -> None:
    """Kubernetes' suffixes and everyone's."""
    assert settings.load({"memory": text}).memory == size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30", 30), ("30s", 30), ("5m", 300), ("1.5h", 5400), ("250ms", 0.25), ("0.5", 0.5), (" 2 S ", 2)],
)
def test_times(text: str, seconds: float) -> None:
    """Seconds, unless they say otherwise."""
    assert settings.load({"timeout": text}).timeout == seconds


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
def test_patterns(value: Any, patterns: tuple[str, ...]) -> None:
    """A comma between them, KServe's JSON list, or several flags; a glob may begin with a bracket."""
    assert settings.load({"include": value}).include == patterns


@pytest.mark.parametrize("value", [SHA, SHA.upper(), f"sha256:{SHA}", f" {SHA}\n"])
def test_a_pin_is_the_same_in_every_spelling(value: str) -> None:
    """As sha256sum, receipts and people write it."""
    assert settings.load({"sha256": value}).sha256 == SHA


WRONG = [
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


@pytest.mark.parametrize(("field", "value"), WRONG)
def test_a_flag_that_makes_no_sense_is_a_usage_error(field: str, value: str) -> None:
    """Named, with the value."""
    with pytest.raises(UsageError) as caught:
        settings.load({field: value})

    assert caught.value.message.startswith(f"--{field.replace('_', '-')} ")
    assert value[:50] in caught.value.message  # of a long one, the beginning
    assert caught.value.hint


@pytest.mark.parametrize(("field", "value"), WRONG)
def test_a_variable_that_makes_no_sense_is_a_config_error(
    monkeypatch: pytest.MonkeyPatch, field: str, value: str
) -> None:
    """The variable that was set is named, whichever of several it is."""
    for name in settings.variables(field):
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            with pytest.raises(ConfigError) as caught:
                settings.load({})

        assert caught.value.message.startswith(f"{name} ")
        assert caught.value.hint


def source_and_dest() -> tuple[str, str]:
    """What the environment names."""
    return settings.source_and_dest(settings.load({}), settings.environment())


@pytest.mark.parametrize(
    ("environ", "source"),
    [
        ({"MODELFETCH_SOURCE": "https://h/m"}, "https://h/m"),
        ({"GCS_BUCKET": "b", "GCS_MODEL_PATH": "m/x"}, "gs://b/m/x"),
        ({"S3_BUCKET": "b", "S3_MODEL_PATH": "/m/"}, "s3://b/m/"),
        ({"S3_BUCKET": "s3://b/", "S3_MODEL_PATH": "m"}, "s3://b/m"),
        ({"GCS_BUCKET": "gs://b", "GCS_MODEL_PATH": "m#12"}, "gs://b/m#12"),
        ({"GCS_BUCKET": "b", "GCS_MODEL_PATH": "m", "S3_BUCKET": ""}, "gs://b/m"),
        ({"MODELFETCH_SOURCE": "/m", "GCS_BUCKET": "b", "S3_BUCKET": "b"}, "/m"),
    ],
)
def test_the_environment_names_the_model(monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], source: str) -> None:
    """MODELFETCH_SOURCE before the clouds' pairs."""
    for name, value in {**environ, "LOCAL_MODEL_PATH": "/models"}.items():
        monkeypatch.setenv(name, value)

    assert source_and_dest() == (source, "/models")


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({}, ["GCS_BUCKET", "S3_BUCKET", "MODELFETCH_SOURCE", "LOCAL_MODEL_PATH"]),
        ({"GCS_BUCKET": "b"}, ["GCS_BUCKET", "GCS_MODEL_PATH"]),
        ({"S3_MODEL_PATH": "m"}, ["S3_MODEL_PATH", "S3_BUCKET"]),
        ({"GCS_BUCKET": "b", "S3_MODEL_PATH": "m"}, ["GCS_BUCKET", "S3_BUCKET"]),
        ({"GCS_BUCKET": "b", "GCS_MODEL_PATH": "m", "S3_BUCKET": "b", "S3_MODEL_PATH": "m"}, ["GCS_*", "S3_*"]),
        ({"GCS_BUCKET": "b", "GCS_MODEL_PATH": "m"}, ["LOCAL_MODEL_PATH", "MODELFETCH_DEST"]),
    ],
)
def test_none_half_or_two_models_are_a_config_error_that_names_the_variables(
    monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], said: list[str]
) -> None:
    """78 in every case."""
    for name, value in environ.items():
        monkeypatch.setenv(name, value)

    with pytest.raises(ConfigError) as caught:
        source_and_dest()

    assert all(word in f"{caught.value.message} {caught.value.hint}" for word in said)


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"S3_VERIFY_SSL": "0"}, {"verify": False}),
        ({"S3_VERIFY_SSL": ""}, {"verify": True}),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, {"in_cluster": True}),
        ({}, {"verify": True, "in_cluster": False}),
    ],
)
def test_kserves_and_the_sdks_names_are_read(
    monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], expected: dict[str, Any]
) -> None:
    """What the SDKs do not read themselves."""
    for name, value in environ.items():
        monkeypatch.setenv(name, value)

    assert settings.environment()._asdict().items() >= expected.items()


def test_kserves_patterns_and_anonymity_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """As its storage initializer takes them."""
    monkeypatch.setenv("STORAGE_ALLOW_PATTERNS", '["*.bin"]')
    monkeypatch.setenv("STORAGE_IGNORE_PATTERNS", '["*.md", "x"]')
    monkeypatch.setenv("awsAnonymousCredential", "true")

    chosen = settings.load({})
    assert (chosen.include, chosen.exclude, chosen.anonymous) == (("*.bin",), ("*.md", "x"), True)


def test_each_cloud_has_its_certificates(monkeypatch: pytest.MonkeyPatch) -> None:
    """AWS_CA_BUNDLE is for S3 alone."""
    monkeypatch.delenv("CURL_CA_BUNDLE", raising=False)
    monkeypatch.setenv("SSL_CERT_FILE", "/ssl")
    assert settings.environment().ca_bundle == "/ssl"

    monkeypatch.setenv("AWS_CA_BUNDLE", "/aws")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/requests")
    common = SourceOptions(NetworkOptions(ca_bundle=settings.environment().ca_bundle))
    assert common.network.ca_bundle == "/requests"
    bundles = {
        text: find_spec(parse_uri(text)).options_from_env(os.environ, common).network.ca_bundle
        for text in ("s3://b/k", "gs://b/k", "https://h/k")
    }
    assert bundles == {"s3://b/k": "/aws", "gs://b/k": "/requests", "https://h/k": "/requests"}


def test_a_misspelt_name_comes_with_the_nearest_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """What Kubernetes injects for Services called modelfetch or modelfetch-web passes in silence."""
    port = "MODELFETCH_PORT_80_TCP"
    links = ["MODELFETCH_SERVICE_HOST", "MODELFETCH_SERVICE_PORT", "MODELFETCH_SERVICE_PORT_HTTP", "MODELFETCH_PORT"]
    links += [port, f"{port}_PROTO", f"{port}_PORT", f"{port}_ADDR", "MODELFETCH_WEB_SERVICE_HOST"]
    for name in (*links, "MODELFETCH_RETRYS", "MODELFETCH_QQQQ", "MODELFETCH_RETRIES", "MODELFETCHER"):
        monkeypatch.setenv(name, "1")

    assert settings.misspelt() == [("MODELFETCH_QQQQ", None), ("MODELFETCH_RETRYS", "MODELFETCH_RETRIES")]


SECRETS = {
    "MODELFETCH_BEARER_TOKEN": "s3cr3t",
    "MODELFETCH_PRIVATE_KEY_PASSWORD": "s3cr3t",
    "AWS_SECRET_ACCESS_KEY": "s3cr3t",
    "AWS_SESSION_TOKEN": "s3cr3t",
    "HTTPS_PROXY": "http://me:s3@cr3t@proxy:3128",
    "HTTP_PROXY": "me:s3cr3t@proxy:3128",
    "AWS_ENDPOINT_URL": "https://me:s3cr3t@store",
    "MODELFETCH_SOURCE": "https://h/m.bin?X-Amz-Signature=s3cr3t",
}


def test_secrets_are_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokens, keys, passwords of proxies and endpoints, queries of signed URLs."""
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)

    rows = {name: value for name, value, _ in settings.effective(settings.load({}), {})}

    assert not any("cr3t" in value for value in rows.values())
    assert rows["HTTPS_PROXY"] == "http://***@proxy:3128"
    assert rows["HTTP_PROXY"] == "***@proxy:3128"
    assert rows["AWS_ENDPOINT_URL"] == "https://***@store"
    assert rows["source"] == "https://h/m.bin?***"
    assert rows["bearer_token"] == rows["private_key_password"] == rows["AWS_SESSION_TOKEN"] == "**********"


def test_what_is_no_secret_is_shown_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Though it looks a little like one."""
    plain = {"GCS_BUCKET": "b", "GCS_MODEL_PATH": "me@x/y?z", "GOOGLE_APPLICATION_CREDENTIALS": "/keys/me@x.json"}
    for name, value in {**plain, "MODELFETCH_DEST": "/m@1", "MODELFETCH_SOURCE": "gs://b/a@b?c#12"}.items():
        monkeypatch.setenv(name, value)

    rows = {name: value for name, value, _ in settings.effective(settings.load({}), {})}

    assert rows.items() >= {**plain, "dest": "/m@1", "source": "gs://b/a@b?c#12"}.items()


def test_the_secrets_of_the_environment_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ours, AWS's, and passwords in the addresses of proxies and endpoints; ordinary values are none."""
    held = {
        "MODELFETCH_BEARER_TOKEN": "one",
        "AWS_SECRET_ACCESS_KEY": "two",
        "HTTPS_PROXY": "http://me:three@h:1",
        "http_proxy": "me:four@h:1",
        "AWS_ENDPOINT_URL_S3": "https://me:five@h",
        "AWS_REGION": "eu-west-1",
        "MODELFETCH_SOURCE": "https://h:1/m@v1",
    }
    for name, value in held.items():
        monkeypatch.setenv(name, value)

    assert {"one", "two", "three", "four", "five"} <= set(settings.secrets())
    assert {"eu-west-1", "1"}.isdisjoint(settings.secrets())
