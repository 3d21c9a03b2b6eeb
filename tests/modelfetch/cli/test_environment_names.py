"""Environment variables outside the settings: the model's address, KServe's and the SDKs' names, secrets, typos."""

import os
from typing import Any

import pytest

from modelfetch.cli import environment
from modelfetch.cli.environment import find_misspelt_names, list_secrets, read_environment
from modelfetch.cli.settings import load_settings
from modelfetch.errors import ConfigError
from modelfetch.net.connection_pool import NetworkOptions
from modelfetch.sources import SourceOptions, find_spec, parse_uri


def source_and_dest() -> tuple[str, str]:
    """Return source and destination that the environment names."""
    return environment.source_and_dest(load_settings({}), read_environment())


@pytest.mark.parametrize(
    ("variables", "source"),
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
def test_environment_names_the_model(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], source: str) -> None:
    """MODELFETCH_SOURCE beats the clouds' pairs; bucket and path form a URI."""
    for name, value in {**variables, "LOCAL_MODEL_PATH": "/models"}.items():
        monkeypatch.setenv(name, value)

    assert source_and_dest() == (source, "/models")


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({}, ["GCS_BUCKET", "S3_BUCKET", "MODELFETCH_SOURCE", "LOCAL_MODEL_PATH"]),
        ({"GCS_BUCKET": "b"}, ["GCS_BUCKET", "GCS_MODEL_PATH"]),
        ({"S3_MODEL_PATH": "m"}, ["S3_MODEL_PATH", "S3_BUCKET"]),
        ({"GCS_BUCKET": "b", "S3_MODEL_PATH": "m"}, ["GCS_BUCKET", "S3_BUCKET"]),
        ({"GCS_BUCKET": "b", "GCS_MODEL_PATH": "m", "S3_BUCKET": "b", "S3_MODEL_PATH": "m"}, ["GCS_*", "S3_*"]),
        ({"GCS_BUCKET": "b", "GCS_MODEL_PATH": "m"}, ["LOCAL_MODEL_PATH", "MODELFETCH_DEST"]),
    ],
)
def test_no_model_half_a_pair_or_two_models_are_a_config_error(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], words: list[str]
) -> None:
    """The error names the variables to set or to unset."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    with pytest.raises(ConfigError) as caught:
        source_and_dest()

    assert all(word in f"{caught.value.message} {caught.value.hint}" for word in words)


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, {"in_cluster": True}),
        ({}, {"in_cluster": False}),
    ],
)
def test_cluster_is_recognised(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], expected: dict[str, Any]
) -> None:
    """KUBERNETES_SERVICE_HOST marks a pod."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    assert read_environment()._asdict().items() >= expected.items()


def test_s3_alone_uses_aws_ca_bundle(monkeypatch: pytest.MonkeyPatch) -> None:
    """AWS_CA_BUNDLE is for S3; REQUESTS_CA_BUNDLE and SSL_CERT_FILE are for every source."""
    monkeypatch.delenv("CURL_CA_BUNDLE", raising=False)
    monkeypatch.setenv("SSL_CERT_FILE", "/ssl")
    assert read_environment().ca_bundle == "/ssl"

    monkeypatch.setenv("AWS_CA_BUNDLE", "/aws")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/requests")
    common = SourceOptions(NetworkOptions(ca_bundle=read_environment().ca_bundle))
    assert common.network.ca_bundle == "/requests"
    bundles = {
        text: find_spec(parse_uri(text)).options_from_env(os.environ, common).network.ca_bundle
        for text in ("s3://b/k", "gs://b/k", "https://h/k")
    }
    assert bundles == {"s3://b/k": "/aws", "gs://b/k": "/requests", "https://h/k": "/requests"}


def test_misspelt_name_comes_with_the_nearest_known_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables that Kubernetes injects for Services called modelfetch or modelfetch-web are no typos."""
    port = "MODELFETCH_PORT_80_TCP"
    links = ["MODELFETCH_SERVICE_HOST", "MODELFETCH_SERVICE_PORT", "MODELFETCH_SERVICE_PORT_HTTP", "MODELFETCH_PORT"]
    links += [port, f"{port}_PROTO", f"{port}_PORT", f"{port}_ADDR", "MODELFETCH_WEB_SERVICE_HOST"]
    for name in (*links, "MODELFETCH_RETRYS", "MODELFETCH_QQQQ", "MODELFETCH_RETRIES", "MODELFETCHER"):
        monkeypatch.setenv(name, "1")

    assert find_misspelt_names() == [("MODELFETCH_QQQQ", None), ("MODELFETCH_RETRYS", "MODELFETCH_RETRIES")]


def test_secrets_of_the_environment_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Own and AWS secrets, and passwords in addresses of proxies and endpoints; other values are none."""
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

    assert {"one", "two", "three", "four", "five"} <= set(list_secrets())
    assert {"eu-west-1", "1"}.isdisjoint(list_secrets())
