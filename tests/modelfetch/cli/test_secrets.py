"""Secrets are planted everywhere, then searched in all output and files of a run."""

import base64
import re
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args
from urllib.parse import parse_qsl, quote, quote_plus

import pytest
import typer
from pydantic import SecretStr

from modelfetch.cli import app as cli
from modelfetch.cli import settings
from testkit import issuers, servers
from testkit.cli_runner import CliRunner, Run
from testkit.fault_proxy import FaultProxy
from testkit.file_tree import random_bytes
from testkit.https_server import HttpsServer
from testkit.scripted_server import ScriptedServer, ServerResponse, json_response, run_scripted_server
from testkit.stores import GCSBucket, S3Bucket

Proxied = Callable[..., FaultProxy]
PASSWORD = "pl4nted-p4ssword"
TOKEN = "pl4nted-bearer-token"
QUERY = "pl4nted-signature"
KEY_PASSWORD = "pl4nted-password-of-a-key"
CONTAINER = "pl4nted-token-of-a-container"
SECRET = "pl4nted/secret+access=key"
SESSION = "pl4nted/session+token=="
PLANTED = {
    "MODELFETCH_BEARER_TOKEN": TOKEN,
    "MODELFETCH_PRIVATE_KEY_PASSWORD": KEY_PASSWORD,
    "AWS_CONTAINER_AUTHORIZATION_TOKEN": CONTAINER,
    "HTTPS_PROXY": f"http://someone:{PASSWORD}@127.0.0.1:9",
    "NO_PROXY": "127.0.0.1,localhost",
}
KEYS = {"AWS_ACCESS_KEY_ID": "AKIAPLANTED", "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_SESSION_TOKEN": SESSION}
SIGNED = f"X-Amz-Signature={QUERY}&X-Goog-Signature={QUERY}&sig={QUERY}"
LOUD = ("--debug", "--log-level", "debug")


def encoded_forms(secret: str) -> set[str]:
    """Return a secret in every encoding that output could contain."""
    return {
        secret,
        quote(secret),
        quote(secret, safe=""),
        quote_plus(secret),
        base64.b64encode(secret.encode()).decode(),
    }


@dataclass
class SecretSearch:
    """Secrets to search for, and directories to search besides the output.

    Attributes:
        secrets: all planted secrets; secrets of requests are added.
        directories: all files below are read, staging areas and receipts included.
    """

    directories: list[Path]
    secrets: set[str] = field(
        default_factory=lambda: {
            TOKEN,
            QUERY,
            KEY_PASSWORD,
            CONTAINER,
            SECRET,
            SESSION,
            PASSWORD,
            f"someone:{PASSWORD}",
        }
    )

    def add_request_secrets(self, proxy: FaultProxy) -> None:
        """Add the signatures and tokens of the proxy's requests."""
        for request in proxy.requests:
            query = dict(parse_qsl(request.query))
            self.secrets |= {query[n] for n in ("X-Amz-Signature", "X-Amz-Security-Token", "upload_id") if n in query}
            for signature, token in re.findall(
                r"Signature=(\w+)|Bearer (.+)", request.headers.get("authorization", "")
            ):
                self.secrets.add(signature or token)

    def assert_absent(self, run: Run) -> None:
        """Check that no secret is in the output or in the written files."""
        written = {path: path.read_bytes() for top in self.directories for path in top.rglob("*") if path.is_file()}
        texts = {"outputs": run.all_output.encode(), **{str(path): data for path, data in written.items()}}
        searched = {form for secret in self.secrets for form in encoded_forms(secret)}
        found = [(where, form) for where, data in texts.items() for form in searched if form.encode() in data]
        assert found == []


@pytest.fixture
def search(tmp_path: Path) -> SecretSearch:
    """Return a search of the destination directory."""
    return SecretSearch([tmp_path])


@pytest.fixture(autouse=True)
def planted(modelfetch: CliRunner) -> None:
    """Plant the secrets in the environment of every run."""
    modelfetch.env.update(PLANTED)


# --- S3 -------------------------------------------------------------------------------------------------------------


def s3_error_rule(code: str, status: int, message: str) -> dict[str, Any]:
    """Return a rule of the fault proxy with an S3 error."""
    xml = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>"
    return {"status": status, "body": xml.encode(), "times": None}


def temporary_keys_env(bucket: S3Bucket, url: str, search: SecretSearch) -> dict[str, str]:
    """Return an environment with temporary keys of the store's STS, and add the keys to the search."""
    if bucket.server.kind != "minio":
        pytest.skip("only MinIO issues keys that it checks")
    keys = issuers.issue_temporary_keys(bucket.server)
    search.secrets |= {keys.secret, keys.token}
    named = {"AWS_ACCESS_KEY_ID": keys.key, "AWS_SECRET_ACCESS_KEY": keys.secret, "AWS_SESSION_TOKEN": keys.token}
    return {"AWS_ENDPOINT_URL_S3": url, "AWS_REGION": "us-east-1", **named}


def test_successful_commands_show_no_secret(
    modelfetch: CliRunner, s3_bucket: S3Bucket, fault_proxy: Proxied, search: SecretSearch, tmp_path: Path
) -> None:
    """Pull with broken requests, receipt, terminal output, inspect and push."""
    s3_bucket.put("d/m", random_bytes(300_000))
    proxy = fault_proxy(s3_bucket.endpoint)
    proxy.add_rule(**s3_bucket.download_filter("d/m"), cut_after=100_000, times=2)
    env = temporary_keys_env(s3_bucket, proxy.url, search)

    pull = ["pull", s3_bucket.uri("d/"), tmp_path / "d", *LOUD]
    runs = [
        modelfetch.ok(*pull, "--output", "json", env=env),
        modelfetch.run_on_terminal(*pull[:2], tmp_path / "e", *LOUD, env=env),
        modelfetch.ok("inspect", s3_bucket.uri("d/"), "--output", "json", *LOUD, env=env),
        modelfetch.ok("push", tmp_path / "d" / "m", s3_bucket.uri("pushed"), *LOUD, env=env),
    ]

    search.add_request_secrets(proxy)
    assert [run.code for run in runs] == [0, 0, 0, 0]
    assert len(search.secrets) > 12
    for run in runs:
        search.assert_absent(run)


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_refused_pull_and_push_show_no_secret(
    modelfetch: CliRunner,
    s3_bucket: S3Bucket,
    fault_proxy: Proxied,
    search: SecretSearch,
    tmp_path: Path,
    log_format: str,
) -> None:
    """The store's error message repeats the secrets of the request."""
    (tmp_path / "m").write_bytes(b"model")
    proxy = fault_proxy(s3_bucket.endpoint)
    message = f"http://h/k?{SIGNED.replace('&', '&amp;')} with {SESSION}"
    proxy.add_rule(**s3_error_rule("AccessDenied", 403, message))
    env = {"AWS_ENDPOINT_URL_S3": proxy.url, "AWS_REGION": "us-east-1", **KEYS, "MODELFETCH_LOG_FORMAT": log_format}

    pulled = modelfetch("pull", s3_bucket.uri("m"), tmp_path / "n", *LOUD, env=env)
    pushed = modelfetch("push", tmp_path / "m", s3_bucket.uri("m"), *LOUD, env=env)

    search.add_request_secrets(proxy)
    for run in (pulled, pushed):
        assert run.code == 77
        assert "Traceback" in run.stderr
        search.assert_absent(run)


def add_password(url: str) -> str:
    """Return the URL with a user name and a password."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://someone:{PASSWORD}@{rest}"


@pytest.mark.parametrize(
    ("env", "code"),
    [
        ({"AWS_ENDPOINT_URL_S3": add_password("http://127.0.0.1:9")}, 75),
        ({"AWS_ENDPOINT_URL_S3": add_password("http://127.0.0.1:port")}, 78),
        ({"S3_ENDPOINT": add_password("http://h:port")}, 78),
        ({"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9", "AWS_SESSION_TOKEN": f"{SESSION}\n{SESSION}"}, 78),
        ({"AWS_ENDPOINT_URL_S3": "https://h", "HTTPS_PROXY": f"socks5://someone:{PASSWORD}@127.0.0.1:9"}, 78),
        ({"AWS_ENDPOINT_URL_S3": "https://h"}, 75),  # through the proxy, which does not listen
        ({"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9", "MODELFETCH_RETRIES": "many"}, 78),
    ],
)
def test_invalid_configuration_shows_no_secret(
    modelfetch: CliRunner, search: SecretSearch, tmp_path: Path, env: dict[str, str], code: int
) -> None:
    """Endpoints and proxies with passwords, valid or broken; a token with a line break, which http.client quotes."""
    given = {"AWS_REGION": "us-east-1", "MODELFETCH_RETRIES": "1", **KEYS, **env}

    run = modelfetch("pull", "s3://bucket/m", tmp_path / "m", *LOUD, env=given)

    assert run.code == code, run.stderr
    search.assert_absent(run)


def test_untrusted_certificate_shows_no_secret(
    modelfetch: CliRunner,
    s3_bucket: S3Bucket,
    fault_proxy: Proxied,
    https_server: HttpsServer,
    search: SecretSearch,
    tmp_path: Path,
) -> None:
    """Python's warnings about unchecked certificates show no secret either."""
    s3_bucket.put("m", b"model")
    secure = fault_proxy(s3_bucket.endpoint, https_server.tls)
    env = {**temporary_keys_env(s3_bucket, secure.url, search), "PYTHONWARNINGS": "always"}

    refused = modelfetch("pull", s3_bucket.uri("m"), tmp_path / "m", *LOUD, env=env)
    unchecked = modelfetch("pull", s3_bucket.uri("m"), tmp_path / "m", *LOUD, env={**env, "S3_VERIFY_SSL": "0"})

    search.add_request_secrets(secure)
    assert refused.code == 69
    assert "InsecureRequestWarning" in unchecked.stderr
    for run in (refused, unchecked):
        search.assert_absent(run)


def test_killed_pull_leaves_no_secret_in_files_or_command_line(
    modelfetch: CliRunner, s3_bucket: S3Bucket, fault_proxy: Proxied, search: SecretSearch, tmp_path: Path
) -> None:
    """The staging area, with journal and lock, and the command line visible in `ps`."""
    s3_bucket.put("m", random_bytes(6_000_000))
    proxy = fault_proxy(s3_bucket.endpoint)
    proxy.add_rule(**s3_bucket.download_filter("m"), stall_after=5_000_000)
    env = temporary_keys_env(s3_bucket, proxy.url, search)

    running = modelfetch.start("pull", s3_bucket.uri("m"), tmp_path / "m", *LOUD, env=env)
    proxy.wait_for(lambda: proxy.sent_bytes() >= 5_000_000)
    search.add_request_secrets(proxy)
    command = Path(f"/proc/{running.process.pid}/cmdline").read_text()
    run = running.send_signal(signal.SIGKILL)

    assert list((tmp_path / ".modelfetch").rglob("parts.jsonl"))
    search.assert_absent(run)
    assert [secret for secret in search.secrets if secret in command] == []


# --- GCS ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def issuer() -> Iterator[ScriptedServer]:
    """Yield the server that issues tokens."""
    with run_scripted_server() as server:
        yield server


def test_service_account_key_and_tokens_are_never_shown(
    modelfetch: CliRunner,
    gcs_bucket: GCSBucket,
    fault_proxy: Proxied,
    issuer: ScriptedServer,
    search: SecretSearch,
    tmp_path: Path,
) -> None:
    """On success, after a refusal by store or issuer, and with the Google SDK's logging enabled."""
    gcs_bucket.put("m", b"model")
    proxy = fault_proxy(gcs_bucket.endpoint)
    pem = issuers.new_private_key()
    search.secrets |= {"pl4nted-access-token", pem.splitlines()[5], pem.splitlines()[9]}
    key = issuers.write_service_account(modelfetch.home / "key.json", f"{issuer.url}/token", pem)
    env = {"API_ENDPOINT_OVERRIDE": proxy.url, "GOOGLE_APPLICATION_CREDENTIALS": str(key)}
    env["GOOGLE_SDK_PYTHON_LOGGING_SCOPE"] = "google"
    issuer.respond_with(issuers.google_token_endpoint(lambda: "pl4nted-access-token"))

    granted = modelfetch("pull", gcs_bucket.uri("m"), tmp_path / "m", *LOUD, env=env)
    message = b'{"error": {"code": 403, "message": "Bearer pl4nted-access-token may not"}}'
    proxy.add_rule(status=403, body=message, times=None)
    refused = modelfetch("pull", gcs_bucket.uri("m"), tmp_path / "n", *LOUD, env=env)
    echo = {"error": "invalid_grant", "assertion": "pl4nted-access-token", "id_token": "pl4nted-access-token"}
    issuer.respond_with(lambda _: ServerResponse(400, body=json_response(echo).body))
    unissued = modelfetch("pull", gcs_bucket.uri("m"), tmp_path / "n", *LOUD, env=env)

    search.add_request_secrets(proxy)
    assert (granted.code, refused.code, unissued.code) == (0, 77, 77)
    for run in (granted, refused, unissued):
        search.assert_absent(run)


def test_broken_private_key_is_not_shown(modelfetch: CliRunner, search: SecretSearch, tmp_path: Path) -> None:
    """An unreadable private key in a service account file is not quoted."""
    key = issuers.write_service_account(modelfetch.home / "key.json", "http://127.0.0.1:9/token", f"{QUERY}\n{QUERY}")

    run = modelfetch("pull", "gs://b/m", tmp_path / "m", *LOUD, env={"GOOGLE_APPLICATION_CREDENTIALS": str(key)})

    assert run.code == 77
    search.assert_absent(run)


# --- secrets where a path belongs -----------------------------------------------------------------------------------

KEY_TEXT = (
    f'{{"type": "service_account", "private_key": "-----BEGIN PRIVATE KEY-----\\n{QUERY}\\n-----END PRIVATE KEY-----"}}'
)
SECRET_FORMS = [
    pytest.param(KEY_TEXT, id="JSON"),
    pytest.param(KEY_TEXT.replace(", ", ",\n  "), id="JSON in lines"),
    pytest.param(base64.b64encode(KEY_TEXT.encode()).decode(), id="base64 of JSON"),
    pytest.param(f"eyJhbGciOiJSUzI1NiJ9.{QUERY * 8}.{TOKEN * 8}", id="JWT"),
    pytest.param(f"opaque{TOKEN.replace('-', '')}", id="opaque token"),
]


@pytest.mark.parametrize("value", SECRET_FORMS)
@pytest.mark.parametrize(
    ("variable", "source", "beside"),
    [
        ("GOOGLE_APPLICATION_CREDENTIALS", "gs://b/m", {}),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", "s3://b/m", {"AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/r"}),
        (
            "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
            "s3://b/m",
            {"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://127.0.0.1:9/c"},
        ),
    ],
)
def test_secret_in_place_of_its_path_is_exit_78_and_never_shown(
    modelfetch: CliRunner,
    search: SecretSearch,
    tmp_path: Path,
    variable: str,
    source: str,
    beside: dict[str, str],
    value: str,
) -> None:
    """The message names the variable; `config` masks the value; no part of the value is printed."""
    env = {"AWS_REGION": "us-east-1", "MODELFETCH_RETRIES": "1", **beside, variable: value}
    search.secrets |= {value, value[:24], value[-24:]}

    pulled = modelfetch("pull", source, tmp_path / "m", *LOUD, env=env)
    inspected = modelfetch("inspect", source, *LOUD, env=env)
    shown = modelfetch.ok("config", env=env)

    assert (pulled.code, inspected.code) == (78, 78)
    assert f"{variable} holds no path" in pulled.termination
    for run in (pulled, inspected, shown):
        search.assert_absent(run)


@pytest.mark.parametrize(
    "variable", ["AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "AWS_CA_BUNDLE", "SSL_CERT_FILE"]
)
@pytest.mark.parametrize("value", SECRET_FORMS)
def test_secret_in_place_of_another_path_is_never_shown(
    modelfetch: CliRunner, search: SecretSearch, tmp_path: Path, variable: str, value: str
) -> None:
    """Whatever the library makes of the value, no part of the value is printed."""
    env = {"AWS_REGION": "us-east-1", "MODELFETCH_RETRIES": "1", **KEYS, variable: value}
    env["AWS_ENDPOINT_URL_S3"] = "https://127.0.0.1:9"
    search.secrets |= {value, value[:24], value[-24:]}

    run = modelfetch("pull", "s3://b/m", tmp_path / "m", *LOUD, env=env)
    shown = modelfetch.ok("config", env=env)

    assert run.code in {75, 77, 78}
    for each in (run, shown):
        search.assert_absent(each)


@pytest.mark.parametrize(
    "value", ["/var/run/secrets/no such/key.json", "key.json", "keys/gcp.json", "./token", "~/key"]
)
def test_missing_path_of_a_key_file_is_shown(modelfetch: CliRunner, tmp_path: Path, value: str) -> None:
    """A path is no secret: the message names the file that is missing, and `config` shows the path."""
    env = {"GOOGLE_APPLICATION_CREDENTIALS": value}

    run = modelfetch("pull", "gs://b/m", tmp_path / "m", env=env)

    assert run.code == 77
    assert value in run.error["message"]
    assert value in modelfetch.ok("config", env=env).stdout


# --- URLs -----------------------------------------------------------------------------------------------------------


def test_query_of_a_signed_url_is_never_shown(
    modelfetch: CliRunner, https_server: HttpsServer, search: SecretSearch, tmp_path: Path
) -> None:
    """Found, missing, or redirected to a closed port; the receipt names the URL without the query."""
    https_server.files["/m"] = b"model"
    closed_port = f"https://127.0.0.1:{servers.free_port()}/m?{SIGNED}"
    unknown = f"Policy={QUERY}&Key-Pair-Id={TOKEN}&by-a-name-that-nobody-knows={QUERY}"
    https_server.redirects |= {
        "/away": closed_port,
        "/loop": f"/loop?{SIGNED}",
        "/else": f"https://127.0.0.1:{servers.free_port()}/m?{unknown}",
        "/round": f"/round?{unknown}",
    }
    env = {**https_server.env, "MODELFETCH_RETRIES": "1"}

    found = modelfetch("pull", f"{https_server.url}/m?{SIGNED}", tmp_path / "m", "-o", "json", *LOUD, env=env)
    failed = [
        modelfetch("pull", f"{https_server.url}/{path}?{SIGNED}", tmp_path / path, *LOUD, env=env)
        for path in ("none", "loop", "away", "else", "round")
    ]

    assert (found.code, found.receipt["source"]) == (0, f"{https_server.url}/m")
    assert [run.code for run in failed] == [66, 69, 75, 75, 69]
    for run in (found, *failed):
        search.assert_absent(run)


@pytest.mark.parametrize(
    "source",
    [
        f"https://someone:{PASSWORD}@h/m?{SIGNED}",
        f"https://someone:{PASSWORD}@h:port/m?{SIGNED}",
        f"https://h:99999/m?{SIGNED}",
        f"https://h:99999/m?by-a-name-that-nobody-knows={QUERY}",
        f"ftp://someone:{PASSWORD}@h/m?{SIGNED}",
        f"s3://someone:{PASSWORD}@bucket/m",
        f"gs://someone:{PASSWORD}@bucket/m",
    ],
)
def test_url_with_a_password_exits_2_or_78_without_showing_the_password(
    modelfetch: CliRunner, search: SecretSearch, tmp_path: Path, source: str
) -> None:
    """No receipt could name the URL, and `ps` would show the password."""
    as_argument = modelfetch("pull", source, tmp_path / "m", *LOUD)
    from_environment = modelfetch(
        "pull", *LOUD, env={"MODELFETCH_SOURCE": source, "MODELFETCH_DEST": str(tmp_path / "m")}
    )

    assert (as_argument.code, from_environment.code) == (2, 78)
    for run in (as_argument, from_environment):
        search.assert_absent(run)


def test_bearer_token_with_a_line_break_is_not_shown(
    modelfetch: CliRunner, search: SecretSearch, tmp_path: Path
) -> None:
    """A line break inside is exit 78; a trailing line break, as in a file, is removed."""
    url = f"http://127.0.0.1:{servers.free_port()}/m"
    inside = modelfetch("pull", url, tmp_path / "m", *LOUD, env={"MODELFETCH_BEARER_TOKEN": f"{TOKEN}\n{TOKEN}"})
    env = {"MODELFETCH_BEARER_TOKEN": f"{TOKEN}\n", "MODELFETCH_RETRIES": "1"}
    at_end = modelfetch("pull", url, tmp_path / "m", *LOUD, env=env)

    assert (inside.code, at_end.code) == (78, 75)
    for run in (inside, at_end):
        search.assert_absent(run)


# --- the rest -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("output", ["text", "json"])
def test_config_masks_secrets_of_every_origin(modelfetch: CliRunner, search: SecretSearch, output: str) -> None:
    """Keys, tokens, signed URLs, and passwords in endpoints and proxies."""
    env = {
        **KEYS,
        "MODELFETCH_SOURCE": f"https://h/m?{SIGNED}",
        "AWS_ENDPOINT_URL_S3": add_password("http://h"),
        "STORAGE_EMULATOR_HOST": add_password("http://h"),
        "HTTP_PROXY": f"someone:{PASSWORD}@h:1",
    }

    run = modelfetch.ok("config", "--output", output, env=env)

    assert "***" in run.stdout
    search.assert_absent(run)


def test_unexpected_exception_shows_no_secret(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], search: SecretSearch, tmp_path: Path
) -> None:
    """An exception message with every secret exits with 70 and is masked."""
    for name, value in {**PLANTED, **KEYS, "MODELFETCH_TERMINATION_LOG": str(tmp_path / "log")}.items():
        monkeypatch.setenv(name, value)

    def fail(*_: object, **__: object) -> None:
        raise LookupError(f"{SECRET} {SESSION!r} {TOKEN} {KEY_PASSWORD} {CONTAINER} {PLANTED['HTTPS_PROXY']} ?{SIGNED}")

    monkeypatch.setattr("modelfetch.pull.pull.pull", fail)
    code = cli.run(["pull", "s3://b/m", str(tmp_path / "m"), *LOUD])
    out, err = capsys.readouterr()

    assert code == 70
    assert "LookupError" in err
    assert (tmp_path / "log").exists()
    search.assert_absent(Run(code, out, err))


def test_no_flag_accepts_a_secret() -> None:
    """`ps` shows the command line to every user."""
    fields = settings.Settings.model_fields.items()
    secret = {name for name, info in fields if SecretStr in (info.annotation, *get_args(info.annotation))}
    commands: dict[str, Any] = vars(typer.main.get_command(cli.app))["commands"]
    flags = {parameter.name for command in commands.values() for parameter in command.params}

    assert secret >= {"bearer_token", "private_key_password"}
    assert secret & flags == set()
