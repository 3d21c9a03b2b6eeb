"""Proxies and private certificate authorities apply to downloads as to the SDKs' calls."""

from collections.abc import Callable
from pathlib import Path

import pytest

from testkit import issuers, servers
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


@pytest.mark.parametrize("what", ["every request", "downloads"])
def test_redirect_of_a_store_from_https_to_http_exits_69(
    modelfetch: CliRunner,
    store: Store,
    fault_proxy: Callable[..., FaultProxy],
    https_server: HttpsServer,
    tmp_path: Path,
    what: str,
) -> None:
    """The unprotected server is not asked, whether metadata or bytes are redirected."""
    store.put("m", DATA)
    secure, plain = fault_proxy(store.endpoint, https_server.tls), fault_proxy(store.endpoint)
    pattern = {} if what == "every request" else store.download_filter("m")
    secure.add_rule(**pattern, status=307, headers={"Location": f"{plain.url}/elsewhere"}, times=None)
    env = {**store.env_at(secure.url), **https_server.env}

    run = modelfetch("pull", store.uri("m"), tmp_path / "m", env=env)

    assert run.code == 69, run.stderr
    assert plain.requests == []
    assert not (tmp_path / "m").exists()


def test_redirect_of_an_https_source_to_http_exits_69_and_sends_no_token(
    modelfetch: CliRunner, https_server: HttpsServer, fault_proxy: Callable[..., FaultProxy], tmp_path: Path
) -> None:
    """Neither the token nor a request reaches the unprotected server."""
    plain = fault_proxy("http://127.0.0.1:9")
    https_server.redirects["/m"] = f"{plain.url}/m"
    env = {**https_server.env, "MODELFETCH_BEARER_TOKEN": "a-bearer-token"}

    run = modelfetch("pull", f"{https_server.url}/m", tmp_path / "m", env=env)

    assert run.code == 69
    assert "from https to http" in run.error["message"]
    assert plain.requests == []


def test_redirect_of_a_token_issuer_to_http_exits_69_and_sends_no_assertion(
    modelfetch: CliRunner, https_server: HttpsServer, fault_proxy: Callable[..., FaultProxy], tmp_path: Path
) -> None:
    """google-auth follows redirects: the signed assertion must not travel unprotected."""
    plain, secure = fault_proxy("http://127.0.0.1:9"), fault_proxy("http://127.0.0.1:9", https_server.tls)
    secure.add_rule(status=307, headers={"Location": f"{plain.url}/token"}, times=None)
    key = issuers.write_service_account(modelfetch.home / "key.json", f"{secure.url}/token", issuers.new_private_key())
    env = {**https_server.env, "GOOGLE_APPLICATION_CREDENTIALS": str(key), "MODELFETCH_RETRIES": "1"}

    run = modelfetch("pull", "gs://b/m", tmp_path / "m", env=env)

    assert run.code == 69, run.stderr
    assert plain.requests == []


@pytest.mark.parametrize("kind", ["https", "gcs"])
def test_s3_verify_ssl_switches_certificate_checks_off_for_s3_only(
    modelfetch: CliRunner,
    request: pytest.FixtureRequest,
    fault_proxy: Callable[..., FaultProxy],
    https_server: HttpsServer,
    tmp_path: Path,
    kind: str,
) -> None:
    """A bearer token must not go to a server that nobody vouches for."""
    https_server.files["/m"] = DATA
    env = {"S3_VERIFY_SSL": "0", "MODELFETCH_BEARER_TOKEN": "a-bearer-token", "MODELFETCH_RETRIES": "1"}
    source = f"{https_server.url}/m"
    if kind == "gcs":
        gcs_bucket: Store = request.getfixturevalue("gcs_bucket")
        gcs_bucket.put("m", DATA)
        secure = fault_proxy(gcs_bucket.endpoint, https_server.tls)
        source, env = gcs_bucket.uri("m"), {**env, **gcs_bucket.env_at(secure.url)}

    run = modelfetch("pull", source, tmp_path / "m", env=env)

    assert run.code == 69, run.stderr
    assert https_server.requests == []


def test_s3_verify_ssl_off_pulls_from_s3_with_a_warning(
    modelfetch: CliRunner,
    s3_bucket: S3Bucket,
    fault_proxy: Callable[..., FaultProxy],
    https_server: HttpsServer,
    tmp_path: Path,
) -> None:
    """KServe's variable is read for S3, and the log tells what is lost."""
    s3_bucket.put("m", DATA)
    secure = fault_proxy(s3_bucket.endpoint, https_server.tls)

    run = modelfetch.ok(
        "pull", s3_bucket.uri("m"), tmp_path / "m", env={**s3_bucket.env_at(secure.url), "S3_VERIFY_SSL": "0"}
    )

    assert (tmp_path / "m").read_bytes() == DATA
    assert any("S3_VERIFY_SSL" in line["message"] for line in run.log if line["level"] == "warning")
