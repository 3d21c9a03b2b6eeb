"""Credentials: renewed during a pull, retried in a new pod, sent only to the right server."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from urllib.parse import parse_qs

import pytest

from testkit import issuers, servers
from testkit.cli_runner import CliRunner
from testkit.fault_proxy import FaultProxy
from testkit.fault_rules import Request
from testkit.file_tree import random_bytes, read_files
from testkit.https_server import HttpsServer
from testkit.issuers import TemporaryKeys
from testkit.scripted_server import ScriptedServer, ServerRequest, ServerResponse, run_scripted_server
from testkit.stores import GCSBucket, S3Bucket, Store

Proxied = Callable[..., FaultProxy]
Environment = dict[str, str | None]
DATA = random_bytes(3_000_000)
CUT = 1_000_000
S3_EXPIRED = b"<?xml version='1.0'?><Error><Code>ExpiredToken</Code><Message>It has expired.</Message></Error>"


@pytest.fixture
def issuer() -> Iterator[ScriptedServer]:
    """Yield the server that issues credentials."""
    with run_scripted_server() as server:
        yield server


@dataclass
class Revocation:
    """Revokes the credentials of the first download in mid-transfer.

    Attributes:
        proxy: fault proxy in front of the store.
        rotate: called on revocation; issues new credentials.
        revoked: revoked identity, refused from then on.
    """

    proxy: FaultProxy
    rotate: Callable[[], object] = lambda: None
    revoked: str = field(default="", init=False)

    def arm(self, store: Store, key: str, status: int, body: bytes) -> None:
        """Cut the first download, and refuse later requests with the old credentials."""
        self.proxy.add_rule(when=self._is_old, status=status, body=body, times=None)
        self.proxy.add_rule(**store.download_filter(key), cut_after=CUT, before=self._revoke)

    def _revoke(self) -> None:
        self.revoked = request_identity(self.proxy.requests[-1])
        self.rotate()

    def _is_old(self, request: Request) -> bool:
        return bool(self.revoked) and request_identity(request) == self.revoked

    def used_identities(self) -> list[str]:
        """Return the distinct identities of all requests, in order of first use."""
        return list(dict.fromkeys(request_identity(request) for request in self.proxy.requests))


def request_identity(request: Request) -> str:
    """Return the access key that signed an S3 request, or the bearer token of a GCS request; empty if anonymous."""
    presigned = parse_qs(request.query).get("X-Amz-Credential", [""])[0]
    signed = re.search(r"Credential=([^,]+)", request.headers.get("authorization", ""))
    credential = presigned or (signed[1] if signed else "")
    return credential.split("/")[0] or request.headers.get("authorization", "").removeprefix("Bearer ")


def require_sts(bucket: S3Bucket) -> None:
    """Skip the test unless the store is MinIO, which issues and checks temporary keys."""
    if bucket.server.kind != "minio":
        pytest.skip("only MinIO has an STS whose keys it checks")


class CredentialSource:
    """Sources of AWS credentials, with keys that the test can rotate."""

    def __init__(self, bucket: S3Bucket, home: Path, issuer: ScriptedServer) -> None:
        """Start with temporary keys of the store's STS."""
        self.bucket, self.home, self.issuer = bucket, home, issuer
        self.keys = issuers.issue_temporary_keys(bucket.server)
        self.token = "a-token-of-the-cluster"

    def rotate(self) -> None:
        """Issue other keys and another token from now on."""
        self.keys = issuers.issue_temporary_keys(self.bucket.server)
        self.token = "another-token-of-the-cluster"
        for name, text in (
            ("keys", self.keys.as_profile()),
            ("keys.json", self._for_programs()),
            ("token", self.token),
        ):
            (self.home / name).write_text(text)

    def _for_programs(self) -> str:
        return self.keys.as_json(Version=1)

    def env(self, kind: str) -> Environment:
        """Return the variables for one kind of source."""
        self.rotate()
        profile, store = self.home / "config", self.bucket.server
        profile.write_text(
            f"[profile program]\ncredential_process = cat {self.home / 'keys.json'}\n"
            f"[profile role]\nrole_arn = {issuers.ROLE}\nsource_profile = base\n"
            f"[profile base]\naws_access_key_id = {store.access_key}\naws_secret_access_key = {store.secret_key}\n"
        )
        self.issuer.respond_with(issuers.container_endpoint(lambda: self.keys), issuers.sts_endpoint(self._of_token))
        return {
            "AWS_ENDPOINT_URL_S3": store.endpoint,
            "AWS_REGION": "us-east-1",
            "AWS_CONFIG_FILE": str(profile),
            **{
                "file": {"AWS_SHARED_CREDENTIALS_FILE": str(self.home / "keys")},
                "program": {"AWS_PROFILE": "program"},
                "role": {"AWS_PROFILE": "role", "AWS_ENDPOINT_URL_STS": store.endpoint},
                "container": {"AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{self.issuer.url}/keys"},
                "web identity": {
                    "AWS_WEB_IDENTITY_TOKEN_FILE": str(self.home / "token"),
                    "AWS_ROLE_ARN": issuers.ROLE,
                    "AWS_ENDPOINT_URL_STS": self.issuer.url,
                },
            }[kind],
        }

    def _of_token(self, token: str) -> TemporaryKeys | None:
        return self.keys if token == self.token else None


@pytest.mark.parametrize("kind", ["file", "program", "role", "container", "web identity"])
def test_revoked_s3_keys_are_renewed_during_the_pull(
    modelfetch: CliRunner, s3_bucket: S3Bucket, fault_proxy: Proxied, issuer: ScriptedServer, tmp_path: Path, kind: str
) -> None:
    """S3 answers 400; the pull continues at the same byte with new keys. A rotated token file is read again."""
    require_sts(s3_bucket)
    s3_bucket.put("m", DATA)
    source = CredentialSource(s3_bucket, modelfetch.home, issuer)
    revocation = Revocation(fault_proxy(s3_bucket.endpoint), source.rotate)
    revocation.arm(s3_bucket, "m", 400, S3_EXPIRED)

    env = {**source.env(kind), "AWS_ENDPOINT_URL_S3": revocation.proxy.url}
    run = modelfetch.ok("pull", s3_bucket.uri("m"), tmp_path / "m", "--output", "json", env=env)

    assert (tmp_path / "m").read_bytes() == DATA
    assert len(revocation.used_identities()) == 2
    assert revocation.proxy.sent_bytes("/m$") < len(DATA) + CUT // 2
    assert run.receipt["retries"] >= 1


def test_expiring_s3_keys_are_renewed_before_each_request(
    modelfetch: CliRunner, s3_bucket: S3Bucket, fault_proxy: Proxied, issuer: ScriptedServer, tmp_path: Path
) -> None:
    """The expiry time triggers the renewal, before any refusal."""
    require_sts(s3_bucket)
    s3_bucket.put("d/1", b"1")
    s3_bucket.put("d/2", b"2")
    issuer.respond_with(issuers.container_endpoint(lambda: issuers.issue_temporary_keys(s3_bucket.server, minutes=1)))
    proxy = fault_proxy(s3_bucket.endpoint)
    env = {"AWS_ENDPOINT_URL_S3": proxy.url, "AWS_REGION": "us-east-1"}

    env["AWS_CONTAINER_CREDENTIALS_FULL_URI"] = f"{issuer.url}/keys"
    modelfetch.ok("pull", s3_bucket.uri("d/"), tmp_path / "d", env=env)

    assert read_files(tmp_path / "d") == {"1": b"1", "2": b"2"}
    assert len({request_identity(request) for request in proxy.matching_requests(**s3_bucket.download_filter())}) == 2


def test_ssl_cert_file_applies_to_sts(
    modelfetch: CliRunner,
    s3_bucket: S3Bucket,
    fault_proxy: Proxied,
    https_server: HttpsServer,
    issuer: ScriptedServer,
    tmp_path: Path,
) -> None:
    """The SDK alone does not read SSL_CERT_FILE for STS."""
    require_sts(s3_bucket)
    s3_bucket.put("m", b"model")
    sts = fault_proxy(s3_bucket.endpoint, https_server.tls)

    env = {**CredentialSource(s3_bucket, modelfetch.home, issuer).env("role"), "AWS_ENDPOINT_URL_STS": sts.url}
    untrusted = modelfetch("pull", s3_bucket.uri("m"), tmp_path / "m", env=env)
    modelfetch.ok("pull", s3_bucket.uri("m"), tmp_path / "m", env={**env, **https_server.env})

    assert (untrusted.code, untrusted.error["reason"]) == (69, "refused")
    assert sts.url.removeprefix("https://") in untrusted.error["message"]
    assert sts.matching_requests("POST")


# --- Google's tokens ------------------------------------------------------------------------------------------------


def google_env(kind: str, home: Path, issuer: ScriptedServer, store: str) -> Environment:
    """Return variables for a service account key, or for a metadata server, and for a store that is no emulator."""
    if kind == "key":
        path = issuers.write_service_account(home / "key.json", f"{issuer.url}/token", issuers.new_private_key())
        return {"API_ENDPOINT_OVERRIDE": store, "GOOGLE_APPLICATION_CREDENTIALS": str(path)}
    address = issuer.url.removeprefix("http://")
    metadata = {"NO_GCE_CHECK": None, "GCE_METADATA_HOST": address, "GCE_METADATA_IP": address}
    return {"API_ENDPOINT_OVERRIDE": store, "GCE_METADATA_DETECT_RETRIES": "1", **metadata}


@pytest.mark.parametrize("kind", ["key", "machine"])
def test_revoked_gcs_token_is_renewed_during_the_pull(
    modelfetch: CliRunner,
    gcs_bucket: GCSBucket,
    fault_proxy: Proxied,
    issuer: ScriptedServer,
    tmp_path: Path,
    kind: str,
) -> None:
    """The pull continues at the same byte; token requests carry no token."""
    gcs_bucket.put("m", DATA)
    tokens = iter(["first-token", "second-token", "third-token"])
    issuer.respond_with(issuers.google_token_endpoint(lambda: next(tokens)))
    revocation = Revocation(fault_proxy(gcs_bucket.endpoint))
    revocation.arm(gcs_bucket, "m", 401, b'{"error": {"message": "revoked", "code": 401}}')

    env = google_env(kind, modelfetch.home, issuer, revocation.proxy.url)
    modelfetch.ok("pull", gcs_bucket.uri("m"), tmp_path / "m", env=env)

    assert (tmp_path / "m").read_bytes() == DATA
    assert revocation.used_identities() == ["first-token", "second-token"]
    assert revocation.proxy.sent_bytes("/m$") < len(DATA) + CUT // 2
    assert [request for request in issuer.requests if "authorization" in request.headers] == []


def test_token_renewal_survives_two_503_responses_of_the_issuer(
    modelfetch: CliRunner, gcs_bucket: GCSBucket, fault_proxy: Proxied, issuer: ScriptedServer, tmp_path: Path
) -> None:
    """A 503 of the issuer after the revocation is no refusal."""
    gcs_bucket.put("m", DATA)
    replies = iter(["first-token", None, None, "second-token"])

    def answer(request: ServerRequest) -> ServerResponse | None:
        token = next(replies) if request.path == "/token" else None
        return issuers.google_token_endpoint(lambda: token or "")(request) if token else ServerResponse(503, body=b"{}")

    issuer.respond_with(answer)
    revocation = Revocation(fault_proxy(gcs_bucket.endpoint))
    revocation.arm(gcs_bucket, "m", 401, b"{}")

    env = google_env("key", modelfetch.home, issuer, revocation.proxy.url)
    modelfetch.ok("pull", gcs_bucket.uri("m"), tmp_path / "m", env=env)

    assert (tmp_path / "m").read_bytes() == DATA
    assert revocation.used_identities() == ["first-token", "second-token"]


def test_token_refused_at_first_use_is_renewed_once(
    modelfetch: CliRunner, gcs_bucket: GCSBucket, fault_proxy: Proxied, issuer: ScriptedServer, tmp_path: Path
) -> None:
    """A 401 to the very first request renews the token."""
    gcs_bucket.put("m", b"model")
    tokens = iter(["first-token", "second-token", "third-token"])
    issuer.respond_with(issuers.google_token_endpoint(lambda: next(tokens)))
    proxy = fault_proxy(gcs_bucket.endpoint)
    proxy.add_rule(status=401, body=b'{"error": {"message": "revoked", "code": 401}}')

    modelfetch.ok(
        "pull", gcs_bucket.uri("m"), tmp_path / "m", env=google_env("key", modelfetch.home, issuer, proxy.url)
    )

    sent = [request.headers["authorization"] for request in proxy.requests]
    assert sent[0] == "Bearer first-token"
    assert set(sent[1:]) == {"Bearer second-token"}


def test_credentials_of_another_universe_domain_exit_78(
    modelfetch: CliRunner, issuer: ScriptedServer, tmp_path: Path
) -> None:
    """The refusal comes before any request to the store."""
    env = google_env("key", modelfetch.home, issuer, "http://store.invalid")
    key = Path(str(env["GOOGLE_APPLICATION_CREDENTIALS"]))
    key.write_text(json.dumps({**json.loads(key.read_text()), "universe_domain": "elsewhere.example"}))

    run = modelfetch("pull", "gs://bucket/m", tmp_path / "m", env=env)

    assert (run.code, run.error["reason"]) == (78, "config")
    assert "elsewhere.example" in run.error["message"]


def test_quota_project_is_sent_with_every_request(
    modelfetch: CliRunner, gcs_bucket: GCSBucket, fault_proxy: Proxied, issuer: ScriptedServer, tmp_path: Path
) -> None:
    """GOOGLE_CLOUD_QUOTA_PROJECT for requester-pays buckets, downloads included."""
    gcs_bucket.put("m", b"model")
    issuer.respond_with(issuers.google_token_endpoint(lambda: "token"))
    proxy = fault_proxy(gcs_bucket.endpoint)
    env = {**google_env("key", modelfetch.home, issuer, proxy.url), "GOOGLE_CLOUD_QUOTA_PROJECT": "payer"}

    modelfetch.ok("pull", gcs_bucket.uri("m"), tmp_path / "m", env=env)

    assert {request.headers.get("x-goog-user-project") for request in proxy.requests} == {"payer"}


# --- a new pod ------------------------------------------------------------------------------------------------------


def late_metadata_env(kind: str, bucket: Store, port: int) -> Environment:
    """Return an environment with credentials from a server at this port."""
    address = f"127.0.0.1:{port}"
    if kind == "s3":
        env = bucket.env | {"AWS_CONTAINER_CREDENTIALS_FULL_URI": f"http://{address}/keys"}
        return {name: value for name, value in env.items() if "_KEY" not in name}
    metadata = {"NO_GCE_CHECK": None, "GCE_METADATA_HOST": address, "GCE_METADATA_IP": address}
    return {"API_ENDPOINT_OVERRIDE": bucket.endpoint, "GCE_METADATA_DETECT_RETRIES": "1", **metadata}


@pytest.mark.parametrize("kind", ["s3", "gcs"])
def test_late_metadata_server_is_retried_only_in_a_cluster(
    modelfetch: CliRunner, request: pytest.FixtureRequest, tmp_path: Path, kind: str
) -> None:
    """In a new pod the server needs some seconds; anywhere else the pull exits with 77 at once."""
    bucket: Store = request.getfixturevalue(f"{kind}_bucket")
    if isinstance(bucket, S3Bucket):
        require_sts(bucket)
    bucket.put("m", b"model")
    env = late_metadata_env(kind, bucket, port := servers.free_port())

    outside_cluster = modelfetch("pull", bucket.uri("m"), tmp_path / "m", env=env)
    in_cluster = {**env, "KUBERNETES_SERVICE_HOST": "10.0.0.1", "MODELFETCH_RETRIES": "50"}
    running = modelfetch.start("pull", bucket.uri("m"), tmp_path / "m", env=in_cluster)
    running.wait_for(lambda: running.log)
    with run_scripted_server(port) as server:
        if isinstance(bucket, S3Bucket):
            server.respond_with(issuers.container_endpoint(partial(issuers.issue_temporary_keys, bucket.server)))
        else:
            server.respond_with(issuers.google_token_endpoint(lambda: "token"))
        run = running.finish()

    assert (outside_cluster.code, outside_cluster.error["reason"], len(outside_cluster.log)) == (
        77,
        "no_credentials",
        1,
    )
    assert run.code == 0, run.stderr
    assert (tmp_path / "m").read_bytes() == b"model"
    assert run.log[0]["reason"] == "no_credentials"


# --- nobody in particular -------------------------------------------------------------------------------------------


def allow_public_read(bucket: S3Bucket) -> None:
    """Make a bucket readable for everybody."""
    if bucket.server.kind != "minio":
        pytest.skip("only MinIO goes by policies")
    everybody = {"Effect": "Allow", "Principal": {"AWS": ["*"]}}
    objects = {**everybody, "Action": ["s3:GetObject"], "Resource": [f"arn:aws:s3:::{bucket.bucket}/*"]}
    listing = {**everybody, "Action": ["s3:ListBucket"], "Resource": [f"arn:aws:s3:::{bucket.bucket}"]}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [objects, listing]})
    bucket.server.client.put_bucket_policy(Bucket=bucket.bucket, Policy=policy)


def make_public_bucket(kind: str, request: pytest.FixtureRequest) -> Store:
    """Return a public bucket with one object."""
    bucket: Store = request.getfixturevalue(f"{kind}_bucket")
    if isinstance(bucket, S3Bucket):
        allow_public_read(bucket)
    bucket.put("d/m", b"model")
    return bucket


def endpoint_env(kind: str, url: str) -> Environment:
    """Return the endpoint of the store, without credentials."""
    return {"AWS_ENDPOINT_URL_S3": url, "AWS_REGION": "us-east-1"} if kind == "s3" else {"API_ENDPOINT_OVERRIDE": url}


@pytest.mark.parametrize("command", ["pull", "inspect"])
@pytest.mark.parametrize("kind", ["s3", "gcs"])
def test_public_bucket_without_credentials_needs_the_anonymous_flag(
    modelfetch: CliRunner, request: pytest.FixtureRequest, fault_proxy: Proxied, tmp_path: Path, kind: str, command: str
) -> None:
    """Without the flag the exit code is 77, and no request is made."""
    bucket = make_public_bucket(kind, request)
    proxy = fault_proxy(bucket.endpoint)
    args = [command, bucket.uri("d/"), *([tmp_path / "d"] if command == "pull" else [])]

    run = modelfetch(*args, env=endpoint_env(kind, proxy.url))
    requests_without_flag = list(proxy.requests)
    modelfetch.ok(*args, "--anonymous", env=endpoint_env(kind, proxy.url))

    assert (run.code, run.error["reason"]) == (77, "no_credentials")
    assert "--anonymous" in run.error["hint"]
    assert requests_without_flag == []
    assert proxy.requests


@pytest.mark.parametrize("kind", ["s3", "gcs"])
def test_anonymous_neither_sends_nor_looks_up_credentials(
    modelfetch: CliRunner,
    request: pytest.FixtureRequest,
    fault_proxy: Proxied,
    issuer: ScriptedServer,
    tmp_path: Path,
    kind: str,
) -> None:
    """No credential process is run, and no token requested."""
    bucket = make_public_bucket(kind, request)
    proxy = fault_proxy(bucket.endpoint)
    config = modelfetch.home / "config"
    config.write_text(f"[default]\ncredential_process = touch {modelfetch.home / 'was-run'}\n")
    issuer.respond_with(issuers.google_token_endpoint(lambda: "token"))
    env = {
        **google_env("key", modelfetch.home, issuer, proxy.url),
        **endpoint_env(kind, proxy.url),
        "AWS_CONFIG_FILE": str(config),
        "MODELFETCH_ANONYMOUS": "true",
    }

    modelfetch.ok("pull", bucket.uri("d/"), tmp_path / "d", env=env)
    if kind == "s3":
        modelfetch.ok(
            "pull", bucket.uri("d/m"), tmp_path / "m", env={**env, **bucket.env, **endpoint_env(kind, proxy.url)}
        )

    assert read_files(tmp_path / "d") == {"m": b"model"}
    assert proxy.requests
    assert [r for r in proxy.requests if request_identity(r) or "authorization" in r.headers] == []
    assert issuer.requests == []
    assert not (modelfetch.home / "was-run").exists()
