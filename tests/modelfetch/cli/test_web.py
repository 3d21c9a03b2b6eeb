"""Models behind URLs and on local paths."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from testkit.cli_runner import CliRunner
from testkit.fault_proxy import FaultProxy
from testkit.file_tree import RECEIPT_NAME, directory_digest, random_bytes, read_files, write_files
from testkit.https_server import HttpsServer
from testkit.stores import GCSBucket

MODEL = {
    "config.json": b"{}",
    "empty": b"",
    "weights/0.bin": random_bytes(70_000, 1),
    "weights/deep/1.bin": random_bytes(3, 2),
}


@pytest.mark.parametrize("server_options", [{}, {"ranges": False}, {"length": False}, {"etag": False}, {"head": False}])
def test_url_is_pulled_from_servers_without_optional_features(
    modelfetch: CliRunner, https_server: HttpsServer, tmp_path: Path, server_options: dict[str, bool]
) -> None:
    """The server lacks ranges, a length, an ETag, or HEAD requests."""
    data = random_bytes(400_000)
    https_server.files["/dir/m%20x.bin"] = data
    for name, value in server_options.items():
        setattr(https_server, name, value)

    run = modelfetch.ok(
        "pull", f"{https_server.url}/dir/m%20x.bin?sig=SECRET", f"{tmp_path}/", "--output", "json", env=https_server.env
    )

    assert (tmp_path / "m x.bin").read_bytes() == data
    assert "SECRET" not in run.all_output


def test_url_redirect_is_followed(modelfetch: CliRunner, https_server: HttpsServer, tmp_path: Path) -> None:
    """Release pages redirect downloads to another path."""
    https_server.files["/new"] = b"model"
    https_server.redirects["/old"] = "/new"

    modelfetch.ok("pull", f"{https_server.url}/old", tmp_path / "m", env=https_server.env)

    assert (tmp_path / "m").read_bytes() == b"model"


def test_bearer_token_authorises_a_url(modelfetch: CliRunner, https_server: HttpsServer, tmp_path: Path) -> None:
    """The token is sent and never shown; without the token the pull exits with 77."""
    https_server.files["/m"] = b"model"
    https_server.token = "t0p-secret-token"

    run = modelfetch.ok(
        "pull",
        f"{https_server.url}/m",
        tmp_path / "m",
        env={**https_server.env, "MODELFETCH_BEARER_TOKEN": "t0p-secret-token"},
    )
    refused = modelfetch("pull", f"{https_server.url}/m", tmp_path / "n", env=https_server.env)

    assert (tmp_path / "m").read_bytes() == b"model"
    assert "t0p-secret-token" not in run.all_output
    assert refused.code == 77
    assert "MODELFETCH_BEARER_TOKEN" in refused.error["hint"]


def test_bearer_token_is_not_sent_after_a_redirect_to_another_host(
    modelfetch: CliRunner,
    https_server: HttpsServer,
    fault_proxy: Callable[..., FaultProxy],
    gcs_bucket: GCSBucket,
    tmp_path: Path,
) -> None:
    """The redirected request has no Authorization header."""
    gcs_bucket.put("m", b"model")
    other_host = fault_proxy(gcs_bucket.endpoint, https_server.tls)
    path = f"/storage/v1/b/{gcs_bucket.bucket}/o/m?alt=media"
    https_server.redirects["/m"] = other_host.url.replace("127.0.0.1", "localhost") + path

    env = {**https_server.env, "MODELFETCH_BEARER_TOKEN": "t0p-secret-token"}
    modelfetch.ok("pull", f"{https_server.url}/m", tmp_path / "m", env=env)

    assert (tmp_path / "m").read_bytes() == b"model"
    assert other_host.requests
    assert [request for request in other_host.requests if "authorization" in request.headers] == []


def test_plain_http_url_is_pulled_with_a_warning(modelfetch: CliRunner, gcs_bucket: GCSBucket, tmp_path: Path) -> None:
    """The log warns about http:// and the pull succeeds."""
    gcs_bucket.put("m", b"model")

    url = f"{gcs_bucket.endpoint}/storage/v1/b/{gcs_bucket.bucket}/o/m?alt=media"
    run = modelfetch.ok("pull", url, tmp_path / "m")

    assert (tmp_path / "m").read_bytes() == b"model"
    assert [line["level"] for line in run.log if "http://" in line["message"]][:1] == ["warning"]


@pytest.mark.parametrize("form", ["{}", "file://{}"])
def test_local_path_is_pulled_with_a_receipt(modelfetch: CliRunner, tmp_path: Path, form: str) -> None:
    """A file or a directory, as a file URL or as a plain path."""
    write_files(tmp_path / "from", MODEL)

    modelfetch.ok("pull", form.format(tmp_path / "from"), tmp_path / "d")
    modelfetch.ok("pull", form.format(tmp_path / "from" / "config.json"), tmp_path / "m")

    receipt = json.loads((tmp_path / "d" / RECEIPT_NAME).read_text())
    assert read_files(tmp_path / "d") == MODEL
    assert (tmp_path / "m").read_bytes() == b"{}"
    assert receipt["digest"] == directory_digest(MODEL)


def test_relative_path_is_resolved_against_the_working_directory(modelfetch: CliRunner, tmp_path: Path) -> None:
    """Source and destination may be relative paths."""
    write_files(modelfetch.home, {"model/m": b"model"})

    modelfetch.ok("pull", "model/m", tmp_path / "m")
    modelfetch.ok("pull", "./model", "dest")

    assert (tmp_path / "m").read_bytes() == b"model"
    assert read_files(modelfetch.home / "dest") == {"m": b"model"}
