"""Proxies and private certificate authorities apply to downloads as to the SDKs' calls."""

from collections.abc import Callable
from pathlib import Path

import pytest

from testkit import servers
from testkit.cli_runner import CliRunner
from testkit.fault_proxy import FaultProxy
from testkit.file_tree import random_bytes
from testkit.https_server import HttpsServer
from testkit.stores import S3Bucket, Store

DATA = random_bytes(100_000)


def test_proxy_carries_metadata_requests_and_downloads(
    modelfetch: CliRunner, store: Store, fault_proxy: Callable[..., FaultProxy], tmp_path: Path
) -> None:
    """HTTP_PROXY applies to every request, and NO_PROXY bypasses the proxy for every request."""
    store.put("m", DATA)
    proxy = fault_proxy(store.endpoint)

    modelfetch.ok(
        "pull", store.uri("m"), tmp_path / "m", env={**store.env, "HTTP_PROXY": proxy.url, "http_proxy": proxy.url}
    )
    through = len(proxy.requests), proxy.sent_bytes(store.download_filter("m")["path"])
    no_proxy = {"http_proxy": proxy.url, "no_proxy": "127.0.0.1"}
    modelfetch.ok("pull", store.uri("m"), tmp_path / "n", env={**store.env, **no_proxy})

    assert through[0] >= 2
    assert through[1] >= len(DATA)
    assert len(proxy.requests) == through[0]
    assert (tmp_path / "m").read_bytes() == (tmp_path / "n").read_bytes() == DATA


@pytest.mark.parametrize(
    ("kind", "variable"),
    [("s3", "AWS_CA_BUNDLE"), ("s3", "SSL_CERT_FILE"), ("gcs", "REQUESTS_CA_BUNDLE"), ("gcs", "SSL_CERT_FILE")],
)
def test_private_ca_is_trusted_for_metadata_requests_and_downloads(
    modelfetch: CliRunner,
    request: pytest.FixtureRequest,
    fault_proxy: Callable[..., FaultProxy],
    https_server: HttpsServer,
    tmp_path: Path,
    kind: str,
    variable: str,
) -> None:
    """The CA comes from the SDK's variable, or from SSL_CERT_FILE."""
    store: Store = request.getfixturevalue(f"{kind}_bucket")
    store.put("m", DATA)
    secure = fault_proxy(store.endpoint, https_server.tls)
    env = {**store.env_at(secure.url), variable: str(https_server.ca)}

    modelfetch.ok("pull", store.uri("m"), tmp_path / "m", env=env)

    assert (tmp_path / "m").read_bytes() == DATA


def test_untrusted_store_certificate_exits_69_without_retries(
    modelfetch: CliRunner,
    store: Store,
    fault_proxy: Callable[..., FaultProxy],
    https_server: HttpsServer,
    tmp_path: Path,
) -> None:
    """The hint names SSL_CERT_FILE."""
    secure = fault_proxy(store.endpoint, https_server.tls)

    run = modelfetch("pull", store.uri("m"), tmp_path / "m", env=store.env_at(secure.url))

    assert (run.code, run.error["reason"]) == (69, "refused")
    assert "SSL_CERT_FILE" in run.error["hint"]
    assert len(run.log) == 1


def test_unreachable_proxy_exits_75_and_names_the_variable(
    modelfetch: CliRunner, s3_bucket: S3Bucket, tmp_path: Path
) -> None:
    """The hint names HTTPS_PROXY as the setting to check."""
    closed_port = f"http://127.0.0.1:{servers.free_port()}"

    run = modelfetch(
        "pull", s3_bucket.uri("m"), tmp_path / "m", "--retries", "1", env={**s3_bucket.env, "http_proxy": closed_port}
    )

    assert (run.code, run.error["reason"]) == (75, "transient")
    assert "HTTPS_PROXY" in run.error["hint"]
