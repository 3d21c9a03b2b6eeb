"""Rows of `modelfetch config`: effective values with their origins, secrets masked."""

import pytest

from modelfetch.cli.config_report import config_as_dict, config_as_text, list_config_rows
from modelfetch.cli.settings import load_settings

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
    """Tokens, keys, passwords of proxies and endpoints, and queries of signed URLs do not show."""
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)

    rows = {name: value for name, value, _ in list_config_rows(load_settings({}), {})}

    assert not any("cr3t" in value for value in rows.values())
    assert rows["HTTPS_PROXY"] == "http://***@proxy:3128"
    assert rows["HTTP_PROXY"] == "***@proxy:3128"
    assert rows["AWS_ENDPOINT_URL"] == "https://***@store"
    assert rows["source"] == "https://h/m.bin?***"
    assert rows["bearer_token"] == rows["private_key_password"] == rows["AWS_SESSION_TOKEN"] == "**********"


def test_values_that_resemble_secrets_show_unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths with `@` and `?` in them are no secrets."""
    plain = {"GCS_BUCKET": "b", "GCS_MODEL_PATH": "me@x/y?z", "GOOGLE_APPLICATION_CREDENTIALS": "/keys/me@x.json"}
    for name, value in {**plain, "MODELFETCH_DEST": "/m@1", "MODELFETCH_SOURCE": "gs://b/a@b?c#12"}.items():
        monkeypatch.setenv(name, value)

    rows = {name: value for name, value, _ in list_config_rows(load_settings({}), {})}

    assert rows.items() >= {**plain, "dest": "/m@1", "source": "gs://b/a@b?c#12"}.items()


def test_rows_name_the_origin_of_each_value(monkeypatch: pytest.MonkeyPatch) -> None:
    """A value comes from a flag, a named variable or the default; text and JSON hold the same rows."""
    monkeypatch.setenv("LOCAL_MODEL_PATH", "/models")
    flags = {"retries": "5"}

    rows = list_config_rows(load_settings(flags), flags)

    origins = {row.name: row.origin for row in rows}
    assert [origins[name] for name in ("retries", "dest", "memory")] == ["flag", "LOCAL_MODEL_PATH", "default"]
    assert config_as_dict(rows)["memory"] == {"value": "64Mi", "from": "default"}
    assert [line.split()[0] for line in config_as_text(rows).splitlines()] == [row.name for row in rows]
