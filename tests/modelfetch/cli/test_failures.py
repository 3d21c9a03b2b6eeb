"""Failures: exit code, reason, one plain message, termination log; no secret, no traceback."""

import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from testkit import servers
from testkit.cli_runner import CliRunner, Run
from testkit.fault_proxy import FaultProxy
from testkit.file_tree import random_bytes, read_files
from testkit.https_server import HttpsServer
from testkit.stores import GCSBucket, ModelFolder, S3Bucket, Store

Proxied = Callable[[str], FaultProxy]
MEGABYTE = 1_000_000


def assert_failed(run: Run, code: int, reason: str, *words: str) -> None:
    """Check exit code, the last JSON line on stderr, and the same line in the termination log."""
    assert (run.code, run.error.get("reason")) == (code, reason), run.stderr
    assert run.error.keys() == {"level", "code", "reason", "message", "hint", "source"}
    assert (run.error["level"], run.error["code"]) == ("error", code)
    assert run.error["message"]
    assert run.error["hint"]
    assert json.loads(run.termination) == run.error
    assert len(run.termination.encode()) <= 4096
    assert [line for line in run.log[:-1] if line["level"] == "error"] == []
    assert run.stdout == ""
    assert "Traceback" not in run.all_output
    assert [word for word in words if word not in run.error["message"] + run.error["hint"]] == []


# --- not found ------------------------------------------------------------------------------------------------------


def test_missing_bucket_exits_66(modelfetch: CliRunner, store: Store, tmp_path: Path) -> None:
    """The message names the bucket, and the source is the URI."""
    run = modelfetch("pull", f"{store.scheme}://no-such-bucket-here/m", tmp_path / "m", env=store.env)

    assert_failed(run, 66, "not_found", "no-such-bucket-here")
    assert run.error["source"] == f"{store.scheme}://no-such-bucket-here/m"


def test_missing_object_exits_66(modelfetch: CliRunner, store: Store, tmp_path: Path) -> None:
    """The message names the URI; a sibling with the same prefix is not used."""
    store.put("models2/m", b"x")

    run = modelfetch("pull", store.uri("models"), tmp_path / "m", env=store.env)

    assert_failed(run, 66, "not_found", store.uri("models"))
    assert read_files(tmp_path) == {}


@pytest.mark.parametrize(
    "version", {"s3": "1fd0fd6a-8d4f-4d19-8f6e-27ea1c2f0a11", "bad": "nonsense", "gs": "12345"}.items()
)
def test_missing_version_exits_66(
    modelfetch: CliRunner, s3_versioned: S3Bucket, gcs_versioned: GCSBucket, tmp_path: Path, version: tuple[str, str]
) -> None:
    """A deleted version, an unknown version and an invalid version id."""
    store: Store = gcs_versioned if version[0] == "gs" else s3_versioned
    store.put("m", b"x")

    run = modelfetch("pull", store.pinned_uri("m", version[1]), tmp_path / "m", env=store.env)

    assert_failed(run, 66, "not_found", version[1])


def test_include_pattern_without_a_match_exits_66(modelfetch: CliRunner, folder: ModelFolder, tmp_path: Path) -> None:
    """A directory without a matching file is no model."""
    folder.put("d/a", b"x")

    run = modelfetch("pull", folder.uri("d/"), tmp_path / "d", "--include", "*.onnx")

    assert_failed(run, 66, "not_found", "--include")


# --- credentials ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "reason", "words"),
    [
        ({"AWS_ACCESS_KEY_ID": "NOSUCHKEY"}, "credentials", "AWS_ACCESS_KEY_ID"),
        ({"AWS_SECRET_ACCESS_KEY": "wrong-secret"}, "credentials", "AWS_SECRET_ACCESS_KEY"),
        ({"AWS_SESSION_TOKEN": "bogus-token"}, "credentials", "AWS_SESSION_TOKEN"),
        ({"AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None}, "no_credentials", "AWS_ACCESS_KEY_ID"),
        ({"MODELFETCH_ANONYMOUS": "true"}, "credentials", "denied"),
    ],
)
def test_s3_credentials_refused_exit_77(
    modelfetch: CliRunner, s3_bucket: S3Bucket, tmp_path: Path, change: dict[str, str | None], reason: str, words: str
) -> None:
    """The message names the variable to check, and shows no secret."""
    if s3_bucket.server.kind == "moto":
        pytest.skip("moto checks no credentials")
    s3_bucket.put("m", b"x")

    run = modelfetch("pull", s3_bucket.uri("m"), tmp_path / "m", env={**s3_bucket.env, **change})

    assert_failed(run, 77, reason, words)
    assert [
        v
        for k, v in change.items()
        if v and k in ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN") and v in run.all_output
    ] == []


@pytest.mark.parametrize("status", [401, 403])
def test_gcs_401_or_403_exits_77_without_many_retries(
    modelfetch: CliRunner, gcs_bucket: GCSBucket, fault_proxy: Proxied, tmp_path: Path, status: int
) -> None:
    """Refused credentials are not tried again and again."""
    proxy = fault_proxy(gcs_bucket.endpoint)
    proxy.add_rule(status=status, body=b'{"error": {"message": "denied", "code": %d}}' % status, times=None)

    run = modelfetch("pull", gcs_bucket.uri("m"), tmp_path / "m", env=gcs_bucket.env_at(proxy.url))

    assert_failed(run, 77, "credentials")
    assert len(proxy.requests) <= 3


def test_missing_gcs_credentials_exit_77(modelfetch: CliRunner, tmp_path: Path) -> None:
    """Anonymous access needs the flag `--anonymous`."""
    run = modelfetch("pull", "gs://some-bucket/m", tmp_path / "m")

    assert_failed(run, 77, "no_credentials", "GOOGLE_APPLICATION_CREDENTIALS", "--anonymous")


def test_missing_credentials_are_retried_only_in_a_cluster(
    modelfetch: CliRunner, s3_bucket: S3Bucket, tmp_path: Path
) -> None:
    """The metadata server of a new pod may start late; elsewhere missing credentials fail at once."""
    s3_bucket.put("m", b"model")
    keys = modelfetch.home / "credentials"
    env = {name: value for name, value in s3_bucket.env.items() if "KEY" not in name}
    env |= {"AWS_SHARED_CREDENTIALS_FILE": str(keys), "MODELFETCH_RETRY_WAIT": "0.5s", "MODELFETCH_RETRIES": "50"}

    outside_cluster = modelfetch("pull", s3_bucket.uri("m"), tmp_path / "m", env=env)
    running = modelfetch.start(
        "pull", s3_bucket.uri("m"), tmp_path / "m", env={**env, "KUBERNETES_SERVICE_HOST": "::1"}
    )
    running.wait_for(lambda: running.log)
    server = s3_bucket.server
    keys.write_text(f"[default]\naws_access_key_id={server.access_key}\naws_secret_access_key={server.secret_key}\n")
    run = running.finish()

    assert_failed(outside_cluster, 77, "no_credentials")
    assert len(outside_cluster.log) == 1
    assert run.code == 0
    assert (tmp_path / "m").read_bytes() == b"model"


# --- network --------------------------------------------------------------------------------------------------------


def test_unreachable_endpoint_exits_75(modelfetch: CliRunner, tmp_path: Path, unused_port: int) -> None:
    """The endpoint may start later; the message names the endpoint and the variable."""
    endpoint = f"http://127.0.0.1:{unused_port}"
    env = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y", "AWS_ENDPOINT_URL": endpoint}

    run = modelfetch("pull", "s3://bucket/m", tmp_path / "m", "--retries", "1", env=env)

    assert_failed(run, 75, "transient", f"127.0.0.1:{unused_port}", "AWS_ENDPOINT_URL")


@pytest.fixture
def unused_port() -> int:
    """Return a port without a listener."""
    return servers.free_port()


def test_invalid_endpoint_url_exits_78(modelfetch: CliRunner, tmp_path: Path) -> None:
    """The message names the variable with the invalid URL."""
    env = {"AWS_ENDPOINT_URL_S3": "minio:9000", "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y"}

    run = modelfetch("pull", "s3://bucket/m", tmp_path / "m", env=env)

    assert_failed(run, 78, "config", "AWS_ENDPOINT_URL_S3")


def test_pull_is_tried_as_often_as_retries_says(
    modelfetch: CliRunner, s3_bucket: S3Bucket, fault_proxy: Proxied, tmp_path: Path
) -> None:
    """Exit 75 after the last try; each further try is logged with the reason."""
    s3_bucket.put("m", b"x")
    proxy = fault_proxy(s3_bucket.endpoint)
    proxy.add_rule(
        **s3_bucket.download_filter("m"), status=412, times=None
    )  # replaced: not a matter for the same request again

    run = modelfetch("pull", s3_bucket.uri("m"), tmp_path / "m", "--retries", "2", env=s3_bucket.env_at(proxy.url))

    assert_failed(run, 75, "changed")
    assert len([line for line in run.log if line["level"] == "warning"]) == 1


def test_deadline_ends_a_hanging_transfer_with_75(
    modelfetch: CliRunner, s3_bucket: S3Bucket, fault_proxy: Proxied, tmp_path: Path
) -> None:
    """The reason is `deadline`, and the hint names MODELFETCH_TIMEOUT."""
    s3_bucket.put("m", random_bytes(MEGABYTE))
    proxy = fault_proxy(s3_bucket.endpoint)
    proxy.add_rule(**s3_bucket.download_filter("m"), stall_after=1000, times=None)

    run = modelfetch("pull", s3_bucket.uri("m"), tmp_path / "m", "--timeout", "3s", env=s3_bucket.env_at(proxy.url))

    assert_failed(run, 75, "deadline", "MODELFETCH_TIMEOUT")
    assert "m" not in read_files(tmp_path)


def test_untrusted_certificate_exits_69(modelfetch: CliRunner, https_server: HttpsServer, tmp_path: Path) -> None:
    """A retry would not help; the hint names SSL_CERT_FILE."""
    run = modelfetch("pull", f"{https_server.url}/m", tmp_path / "m")

    assert_failed(run, 69, "refused", "SSL_CERT_FILE")


def test_unusable_urls_exit_66_69_or_77(modelfetch: CliRunner, https_server: HttpsServer, tmp_path: Path) -> None:
    """66 not found, 69 a redirect loop, 77 unauthorised."""
    https_server.redirects["/loop"] = "/loop"
    missing = modelfetch("pull", f"{https_server.url}/none", tmp_path / "m", env=https_server.env)
    loop = modelfetch("pull", f"{https_server.url}/loop", tmp_path / "m", env=https_server.env)
    https_server.token = "token"
    refused = modelfetch("pull", f"{https_server.url}/m", tmp_path / "m", env=https_server.env)

    assert_failed(missing, 66, "not_found", "/none")
    assert_failed(loop, 69, "refused", "redirect")
    assert_failed(refused, 77, "credentials", "MODELFETCH_BEARER_TOKEN")


def test_other_4xx_status_exits_69(
    modelfetch: CliRunner, s3_bucket: S3Bucket, fault_proxy: Proxied, tmp_path: Path
) -> None:
    """Neither time nor credentials would change the response."""
    s3_bucket.put("m", b"x")
    proxy = fault_proxy(s3_bucket.endpoint)
    proxy.add_rule(status=451, times=None)

    run = modelfetch("pull", s3_bucket.uri("m"), tmp_path / "m", env=s3_bucket.env_at(proxy.url))

    assert_failed(run, 69, "refused", "451")


# --- the destination ------------------------------------------------------------------------------------------------


def test_too_small_disk_exits_73_before_fetching(
    modelfetch: CliRunner, s3_bucket: S3Bucket, fault_proxy: Proxied, tmpfs: Callable[..., Path]
) -> None:
    """The message states the bytes needed; no download starts."""
    disk = tmpfs("disk", "size=1m")
    s3_bucket.put("m", random_bytes(3 * MEGABYTE))
    proxy = fault_proxy(s3_bucket.endpoint)

    run = modelfetch("pull", s3_bucket.uri("m"), disk / "m", env=s3_bucket.env_at(proxy.url))

    assert_failed(run, 73, "destination", "3000000")
    assert proxy.matching_requests(**s3_bucket.download_filter("m")) == []
    assert not (disk / "m").exists()


def test_disk_filled_during_the_pull_exits_73(
    modelfetch: CliRunner, https_server: HttpsServer, tmpfs: Callable[..., Path]
) -> None:
    """The size was unknown in advance; nothing is published."""
    disk = tmpfs("disk", "size=1m")
    https_server.files["/m"] = random_bytes(3 * MEGABYTE)
    https_server.length = https_server.ranges = False

    run = modelfetch("pull", f"{https_server.url}/m", disk / "m", env=https_server.env)

    assert_failed(run, 73, "destination")
    assert not (disk / "m").exists()


def test_read_only_destination_exits_73(modelfetch: CliRunner, folder: ModelFolder, tmpfs: Callable[..., Path]) -> None:
    """The message names the path on the read-only disk."""
    folder.put("m", b"x")
    disk = tmpfs("disk", "ro")

    run = modelfetch("pull", folder.uri("m"), disk / "m")

    assert_failed(run, 73, "destination", str(disk))


def test_file_in_place_of_a_directory_exits_73(modelfetch: CliRunner, folder: ModelFolder, tmp_path: Path) -> None:
    """The file is DEST, a parent of DEST, or has a trailing slash in the argument."""
    folder.put("d/a", b"x")
    file = tmp_path / "file"
    file.write_bytes(b"mine")

    as_dest = modelfetch("pull", folder.uri("d/"), file)
    above = modelfetch("pull", folder.uri("d/a"), file / "m")
    slash = modelfetch("pull", folder.uri("d/a"), f"{file}/")

    for run in (as_dest, above, slash):
        assert_failed(run, 73, "destination", str(file))
    assert file.read_bytes() == b"mine"


# --- wrong bytes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("flag", "value"), [("--max-bytes", "1k"), ("--max-files", "1")])
def test_directory_over_budget_exits_65(
    modelfetch: CliRunner, folder: ModelFolder, tmp_path: Path, flag: str, value: str
) -> None:
    """The hint names the variable for the limit."""
    folder.put("d/a", b"x" * 2000)
    folder.put("d/b", b"x")

    run = modelfetch("pull", folder.uri("d/"), tmp_path / "d", flag, value)

    assert_failed(run, 65, "budget", "MODELFETCH_" + flag.removeprefix("--").replace("-", "_").upper())


def test_name_segment_over_255_bytes_exits_65(modelfetch: CliRunner, gcs_bucket: GCSBucket, tmp_path: Path) -> None:
    """No file system accepts a segment of 256 bytes; the hint names --exclude."""
    gcs_bucket.put("d/" + "x" * 256, b"x")

    run = modelfetch("pull", gcs_bucket.uri("d/"), tmp_path / "d", env=gcs_bucket.env)

    assert_failed(run, 65, "unsafe_name", "--exclude")


# --- the command line and the environment ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "env", "code", "words"),
    [
        (["ftp://host/m", "m"], {}, 2, "ftp"),
        ([], {"MODELFETCH_SOURCE": "ftp://host/m", "MODELFETCH_DEST": "m"}, 78, "ftp"),
        (["s3://bucket/m"], {}, 2, "DEST"),
        (["s3://bucket/m", "a", "s3://bucket/n"], {}, 2, "DEST"),
        (["--no-such-flag", "s3://bucket/m", "m"], {}, 2, "--no-such-flag"),
        (["--retries", "many", "s3://bucket/m", "m"], {}, 2, "--retries"),
        (["s3://bucket/m", "m"], {"MODELFETCH_RETRIES": "many"}, 78, "MODELFETCH_RETRIES"),
        (["s3://bucket/m", "m"], {"MODELFETCH_MEMORY": "lots"}, 78, "MODELFETCH_MEMORY"),
        (["s3://bucket/m", "m"], {"MODELFETCH_STALL_TIMEOUT": "-1"}, 78, "MODELFETCH_STALL_TIMEOUT"),
        (["gs:///m", "m"], {}, 2, "bucket"),
    ],
)
def test_invalid_setting_exits_2_typed_or_78_configured(
    modelfetch: CliRunner, args: list[str], env: dict[str, str], code: int, words: str
) -> None:
    """The message names the flag or variable as given."""
    run = modelfetch("pull", *args, env=env)

    assert_failed(run, code, {2: "usage", 78: "config"}[code], words)


def test_misspelt_variable_is_a_warning_with_the_nearest_name(modelfetch: CliRunner, tmp_path: Path) -> None:
    """Variables injected by Kubernetes for a Service named modelfetch cause no warning."""
    (tmp_path / "from").write_bytes(b"x")
    injected = {
        "PORT": "tcp://10.0.0.1:80",
        "SERVICE_HOST": "10.0.0.1",
        "PORT_80_TCP_ADDR": "10.0.0.1",
        "SERVICE_PORT_HTTP": "80",
    }
    env = {"MODELFETCH_RETRYS": "5", **{f"MODELFETCH_{name}": value for name, value in injected.items()}}

    run = modelfetch.ok("pull", tmp_path / "from", tmp_path / "to", env=env)

    (warning,) = [line["message"] for line in run.log if line["level"] == "warning"]
    assert "MODELFETCH_RETRYS" in warning
    assert "MODELFETCH_RETRIES" in warning


# --- reports ---------------------------------------------------------------------------------------------------------


def test_debug_shows_the_traceback(modelfetch: CliRunner, tmp_path: Path) -> None:
    """`--debug` adds the traceback to the error message."""
    assert "Traceback" in modelfetch("pull", "/no/such/file", tmp_path / "m", "--debug").stderr


def test_termination_message_is_json_of_at_most_4096_bytes(modelfetch: CliRunner, tmp_path: Path) -> None:
    """A long message is shortened and stays valid JSON."""
    run = modelfetch("pull", "/" + "é/" * 4000, tmp_path / "m")

    assert run.code == run.error["code"] != 0
    assert len(run.termination.encode()) <= 4096
    assert json.loads(run.termination)["code"] == run.code


def test_termination_log_is_not_created_outside_kubernetes(modelfetch: CliRunner, tmp_path: Path) -> None:
    """Nothing is written to /dev; an unwritable path changes neither code nor reason."""
    env: dict[str, str | None] = {"MODELFETCH_TERMINATION_LOG": None}
    default = modelfetch("pull", "/no/such/file", tmp_path / "m", env=env)
    unwritable = modelfetch(
        "pull", "/no/such/file", tmp_path / "m", env={"MODELFETCH_TERMINATION_LOG": "/no/such/dir/log"}
    )

    assert (default.code, unwritable.code) == (66, 66)
    assert default.error["reason"] == unwritable.error["reason"] == "not_found"
    assert not Path("/dev/termination-log").exists()


@pytest.mark.timing
@pytest.mark.parametrize(("signum", "code", "kind"), [(signal.SIGTERM, 143, "s3"), (signal.SIGINT, 130, "gcs")])
def test_signal_ends_a_stalled_pull_at_once(
    modelfetch: CliRunner,
    request: pytest.FixtureRequest,
    fault_proxy: Proxied,
    tmp_path: Path,
    signum: signal.Signals,
    code: int,
    kind: str,
) -> None:
    """The stall timeout is 30 s, but the signal ends the pull; nothing is published."""
    store: Store = request.getfixturevalue(f"{kind}_bucket")
    store.put("m", random_bytes(MEGABYTE))
    proxy = fault_proxy(store.endpoint)
    proxy.add_rule(**store.download_filter("m"), stall_after=500_000)
    running = modelfetch.start("pull", store.uri("m"), tmp_path / "m", env=store.env_at(proxy.url))
    proxy.wait_for(lambda: proxy.sent_bytes() >= 500_000)

    run = running.send_signal(signum, timeout=10)

    assert_failed(run, code, "interrupted")
    assert not (tmp_path / "m").exists()


@pytest.mark.timing
def test_sigterm_ends_the_pull_as_process_1(
    modelfetch: CliRunner, s3_bucket: S3Bucket, fault_proxy: Proxied, tmp_path: Path
) -> None:
    """Process 1 of a container has no default signal handlers."""
    if subprocess.run(["unshare", "--pid", "--fork", "true"], capture_output=True, check=False).returncode:
        pytest.skip("a pid namespace needs root")
    s3_bucket.put("m", random_bytes(MEGABYTE))
    proxy = fault_proxy(s3_bucket.endpoint)
    proxy.add_rule(**s3_bucket.download_filter("m"), stall_after=500_000)
    modelfetch.prefix = ["unshare", "--pid", "--fork", "--kill-child"]
    running = modelfetch.start("pull", s3_bucket.uri("m"), tmp_path / "m", env=s3_bucket.env_at(proxy.url))
    proxy.wait_for(lambda: proxy.sent_bytes() >= 500_000)
    unshare = running.process.pid
    init = int(Path(f"/proc/{unshare}/task/{unshare}/children").read_text())

    os.kill(init, signal.SIGTERM)

    assert running.finish(timeout=10).code == 143
