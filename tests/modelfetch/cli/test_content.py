"""What stands in a model's place is refused, and the published form is the one that was vouched for."""

import gzip
from pathlib import Path

import pytest

from testkit.archives import pack_files
from testkit.cli_runner import CliRunner
from testkit.file_tree import random_bytes, read_files, sha256_hex, write_files
from testkit.https_server import HttpsServer
from testkit.scripted_server import ScriptedServer, ServerResponse
from testkit.signing_keys import make_key_pair, sign_model
from testkit.stores import GCSBucket, Store

POINTER = (
    b"version https://git-lfs.github.com/spec/v1\n"
    b"oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 4123456\n"
)
PAGE = b"\n<!DOCTYPE html>\n<html><head><title>Sign in</title></head></html>"
ONCE = ("--retries", "1")


# --- nothing --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "code"),
    [
        ({"a": b"", "b/c": b""}, 65),
        ({"model.joblib": b"", "notes": b"1"}, 65),
        ({"w/weights.SAFETENSORS": b"", "config.json": b"{}"}, 65),
        ({"model.bst": b"", "x": b"1"}, 65),
        ({"__init__.py": b"", "weights": b"1"}, 0),
    ],
)
@pytest.mark.parametrize("kind", ["directory", "archive"])
def test_empty_model_is_refused(
    modelfetch: CliRunner, store: Store, tmp_path: Path, kind: str, files: dict[str, bytes], code: int
) -> None:
    """0 bytes in all, or an empty file named like a model; other empty files belong to the model."""
    if kind == "archive":
        store.put("m.tar.gz", pack_files(files, "gzip"))
    else:
        store.put_many("m/", files)

    run = modelfetch(
        "pull", store.uri("m/" if kind == "directory" else "m.tar.gz"), tmp_path / "d", *ONCE, env=store.env
    )

    assert run.code == code, run.stderr
    assert (tmp_path / "d").exists() == (code == 0)


def test_empty_file_that_the_manifest_states_is_pulled(modelfetch: CliRunner, store: Store, tmp_path: Path) -> None:
    """Whoever pushed it knew its size."""
    files = {"model.joblib": b"weights", "model.empty": b""}
    write_files(tmp_path / "model", files)
    modelfetch.ok("push", tmp_path / "model", store.uri("m/"), env=store.env)

    modelfetch.ok("pull", store.uri("m/"), tmp_path / "d", env=store.env)

    assert read_files(tmp_path / "d") == files


# --- a page ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("media_type", "body", "path", "code"),
    [
        ("text/html; charset=utf-8", PAGE, "m.joblib", 65),
        ("TEXT/HTML", b"\xef\xbb\xbf<html>", "m", 65),
        ("text/html", b"<!-- a --><html>", "m.bin", 65),
        ("text/html", PAGE, "report.html", 0),
        ("text/html", b"weights", "m.joblib", 0),
        ("application/octet-stream", PAGE, "m.joblib", 0),
    ],
    ids=["page", "byte order mark", "comment", "html file", "weights", "other type"],
)
def test_web_page_in_place_of_a_model_is_refused(
    modelfetch: CliRunner,
    scripted_server: ScriptedServer,
    tmp_path: Path,
    media_type: str,
    body: bytes,
    path: str,
    code: int,
) -> None:
    """A login page comes with status 200."""
    headers = (("Content-Type", media_type), ("Content-Length", str(len(body))), ("ETag", '"1"'))
    scripted_server.respond_with(lambda r: ServerResponse(200, headers, b"" if r.method == "HEAD" else body))

    run = modelfetch("pull", f"{scripted_server.url}/{path}", f"{tmp_path}/d/", *ONCE)

    assert run.code == code, run.stderr
    assert (tmp_path / "d" / path).exists() == (code == 0)


def test_pinned_web_page_is_pulled(modelfetch: CliRunner, https_server: HttpsServer, tmp_path: Path) -> None:
    """A pin states exactly these bytes."""
    https_server.files["/m"] = PAGE
    https_server.headers["Content-Type"] = "text/html"

    run = modelfetch(
        "pull", f"{https_server.url}/m", tmp_path / "m", "--sha256", sha256_hex(PAGE), env=https_server.env
    )

    assert run.code == 0, run.stderr


# --- a pointer ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["object", "directory", "archive", "path"])
def test_git_lfs_pointer_is_refused_with_the_true_size(
    modelfetch: CliRunner, store: Store, tmp_path: Path, kind: str
) -> None:
    """From every source, in directories and archives too."""
    files = {"config.json": b"{}", "model.safetensors": POINTER}
    store.put("o/model.safetensors", POINTER)
    store.put_many("d/", files)
    store.put("a.tar.gz", pack_files(files, "gzip"))
    write_files(tmp_path / "local", files)
    source = {
        "object": store.uri("o/model.safetensors"),
        "directory": store.uri("d/"),
        "archive": store.uri("a.tar.gz"),
        "path": f"{tmp_path}/local/",
    }[kind]

    run = modelfetch("pull", source, f"{tmp_path}/dest/", *ONCE, env=store.env)

    assert run.code == 65, run.stderr
    assert "Git LFS" in run.error["message"]
    assert "4123456 bytes" in run.error["message"]
    assert read_files(tmp_path / "dest") == {}


def test_pinned_git_lfs_pointer_is_pulled(modelfetch: CliRunner, store: Store, tmp_path: Path) -> None:
    """A pin states exactly these bytes."""
    store.put("m", POINTER)

    modelfetch.ok("pull", store.uri("m"), tmp_path / "m", "--sha256", sha256_hex(POINTER), env=store.env)

    assert (tmp_path / "m").read_bytes() == POINTER


# --- the form that was vouched for ----------------------------------------------------------------------------------

PLAIN = random_bytes(200_000)
STORED = gzip.compress(PLAIN)


@pytest.mark.parametrize(("vouched", "published"), [(None, PLAIN), (PLAIN, PLAIN), (STORED, STORED)])
def test_published_form_of_an_encoded_object_is_the_pinned_one(
    modelfetch: CliRunner, gcs_bucket: GCSBucket, tmp_path: Path, vouched: bytes | None, published: bytes
) -> None:
    """ContentEncoding may be set after the pin was made: decoded bytes are then not what was pinned."""
    gcs_bucket.put("m", STORED, content_encoding="gzip")
    pin = ("--sha256", sha256_hex(vouched)) if vouched else ()

    run = modelfetch.ok("pull", gcs_bucket.uri("m"), tmp_path / "m", *pin, "-o", "json", env=gcs_bucket.env)

    assert (tmp_path / "m").read_bytes() == published
    assert run.receipt["files"][0]["sha256"] == sha256_hex(published)
    modelfetch.ok("verify", tmp_path / "m")


@pytest.mark.parametrize("signed", ["stored", "decoded"])
def test_published_form_of_an_encoded_object_is_the_signed_one(
    modelfetch: CliRunner, gcs_bucket: GCSBucket, tmp_path: Path, signed: str
) -> None:
    """A pin that fits the other form is a contradiction."""
    key = make_key_pair(tmp_path)
    (tmp_path / "m").write_bytes(STORED if signed == "stored" else PLAIN)
    sign_model(tmp_path / "m", key, tmp_path / "m.sig")
    gcs_bucket.put("m", STORED, content_encoding="gzip")
    gcs_bucket.put("m.sig", (tmp_path / "m.sig").read_bytes())
    verify = ("--verify-signature", "--public-key", key.public)
    other = sha256_hex(PLAIN if signed == "stored" else STORED)

    modelfetch.ok("pull", gcs_bucket.uri("m"), tmp_path / "p", *verify, env=gcs_bucket.env)
    both = modelfetch(
        "pull", gcs_bucket.uri("m"), tmp_path / "q", *verify, *ONCE, "--sha256", other, env=gcs_bucket.env
    )

    assert (tmp_path / "p").read_bytes() == (STORED if signed == "stored" else PLAIN)
    assert both.code == 65
    assert not (tmp_path / "q").exists()
