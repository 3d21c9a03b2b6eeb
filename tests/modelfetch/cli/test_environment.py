"""Several sources, and sources from environment variables."""

import json
from pathlib import Path

import pytest

from testkit.cli_runner import CliRunner
from testkit.file_tree import random_bytes, read_files
from testkit.stores import S3Bucket, Store

MODEL = {
    "config.json": b"{}",
    "empty": b"",
    "weights/0.bin": random_bytes(70_000, 1),
    "weights/deep/1.bin": random_bytes(3, 2),
}


def put_files(store: Store, prefix: str, files: dict[str, bytes]) -> None:
    """Store files under a prefix."""
    for name, data in files.items():
        store.put(prefix + name, data)


def test_several_pairs_are_pulled_in_order(modelfetch: CliRunner, s3_bucket: S3Bucket, tmp_path: Path) -> None:
    """KServe and Seldon call the image with SRC DEST SRC DEST."""
    put_files(s3_bucket, "", {"a": b"1", "d/b": b"2"})

    run = modelfetch.ok(
        "pull",
        s3_bucket.uri("a"),
        tmp_path / "a",
        s3_bucket.uri("d"),
        tmp_path / "d",
        "--output",
        "json",
        env=s3_bucket.env,
    )

    assert ((tmp_path / "a").read_bytes(), read_files(tmp_path / "d")) == (b"1", {"b": b"2"})
    assert [receipt["source"] for receipt in run.receipts] == [s3_bucket.uri("a"), run.receipts[1]["source"]]


def test_first_failed_pair_ends_the_run(modelfetch: CliRunner, s3_bucket: S3Bucket, tmp_path: Path) -> None:
    """The exit code is the failed pair's; earlier pairs stay published, later pairs do not start."""
    s3_bucket.put("a", b"1")

    pairs = [
        s3_bucket.uri("a"),
        tmp_path / "a",
        s3_bucket.uri("none"),
        tmp_path / "none",
        s3_bucket.uri("a"),
        tmp_path / "late",
    ]
    run = modelfetch("pull", *pairs, env=s3_bucket.env)

    assert run.code == 66
    assert (tmp_path / "a").read_bytes() == b"1"
    assert not (tmp_path / "late").exists()


@pytest.mark.parametrize("dest", ["LOCAL_MODEL_PATH", "MODELFETCH_DEST"])
def test_bucket_and_path_variables_select_the_source(
    modelfetch: CliRunner, store: Store, tmp_path: Path, dest: str
) -> None:
    """GCS_BUCKET and GCS_MODEL_PATH, or S3_BUCKET and S3_MODEL_PATH, without any argument."""
    store.put("bankchurn/model.joblib", b"model")

    env = {**store.env, **store.model_env("bankchurn/model.joblib"), dest: str(tmp_path / "m")}
    modelfetch.ok("pull", env=env)

    assert (tmp_path / "m").read_bytes() == b"model"


def test_modelfetch_source_takes_precedence_over_bucket_and_path(
    modelfetch: CliRunner, s3_bucket: S3Bucket, tmp_path: Path
) -> None:
    """The documented precedence of the variables."""
    put_files(s3_bucket, "", {"a": b"1", "b": b"2"})

    env = {**s3_bucket.model_env("a"), "MODELFETCH_SOURCE": s3_bucket.uri("b"), "MODELFETCH_DEST": str(tmp_path / "m")}
    modelfetch.ok("pull", env={**s3_bucket.env, **env})

    assert (tmp_path / "m").read_bytes() == b"2"


def test_arguments_take_precedence_over_the_environment(
    modelfetch: CliRunner, s3_bucket: S3Bucket, tmp_path: Path
) -> None:
    """The source and destination in the variables are ignored."""
    put_files(s3_bucket, "", {"a": b"1", "b": b"2"})

    env = {**s3_bucket.env, **s3_bucket.model_env("a"), "LOCAL_MODEL_PATH": str(tmp_path / "a")}
    modelfetch.ok("pull", s3_bucket.uri("b"), tmp_path / "b", env=env)

    assert (tmp_path / "b").read_bytes() == b"2"
    assert not (tmp_path / "a").exists()


def test_empty_variable_counts_as_unset(modelfetch: CliRunner, s3_bucket: S3Bucket, tmp_path: Path) -> None:
    """ConfigMaps and Compose files set unused variables to the empty string."""
    s3_bucket.put("m", b"model")
    unused = ("S3_BUCKET", "S3_MODEL_PATH", "GCS_BUCKET", "GCS_MODEL_PATH", "MODELFETCH_SOURCE", "MODELFETCH_SHA256")
    settings = (
        "MODELFETCH_RETRIES",
        "MODELFETCH_MEMORY",
        "MODELFETCH_TIMEOUT",
        "MODELFETCH_EXTRACT",
        "MODELFETCH_DEST",
    )

    empty = dict.fromkeys(unused + settings, "")
    modelfetch.ok(
        "pull", env={**s3_bucket.env, **empty, **s3_bucket.model_env("m"), "LOCAL_MODEL_PATH": str(tmp_path / "m")}
    )

    assert (tmp_path / "m").read_bytes() == b"model"


@pytest.mark.parametrize(
    ("env", "named"),
    [
        (
            {"S3_BUCKET": "a", "S3_MODEL_PATH": "m", "GCS_BUCKET": "b", "GCS_MODEL_PATH": "m"},
            ["S3_BUCKET", "GCS_BUCKET"],
        ),
        ({}, ["MODELFETCH_SOURCE", "GCS_BUCKET", "S3_BUCKET"]),
        ({"S3_BUCKET": "a"}, ["S3_MODEL_PATH"]),
        ({"GCS_MODEL_PATH": "m"}, ["GCS_BUCKET"]),
    ],
)
def test_ambiguous_environment_exits_78_with_the_variable_names(
    modelfetch: CliRunner, tmp_path: Path, env: dict[str, str], named: list[str]
) -> None:
    """Variables of both clouds, of none, or half of a pair."""
    run = modelfetch("pull", env={**env, "LOCAL_MODEL_PATH": str(tmp_path / "m")})

    assert (run.code, run.error["reason"]) == (78, "config")
    assert [name for name in named if name not in run.error["message"] + run.error["hint"]] == []


def test_missing_destination_exits_78(modelfetch: CliRunner) -> None:
    """The message names the missing variable."""
    run = modelfetch("pull", env={"S3_BUCKET": "a", "S3_MODEL_PATH": "m"})

    assert (run.code, run.error["reason"]) == (78, "config")
    assert "LOCAL_MODEL_PATH" in run.error["message"] + run.error["hint"]


def test_kserve_endpoint_variables_are_read(modelfetch: CliRunner, s3_bucket: S3Bucket, tmp_path: Path) -> None:
    """S3_ENDPOINT is host and port, S3_USE_HTTPS=0 selects http."""
    s3_bucket.put("m", b"model")
    env = {**s3_bucket.env, "S3_ENDPOINT": s3_bucket.endpoint.removeprefix("http://"), "S3_USE_HTTPS": "0"}
    del env["AWS_ENDPOINT_URL_S3"]

    modelfetch.ok("pull", s3_bucket.uri("m"), tmp_path / "m", env=env)

    assert (tmp_path / "m").read_bytes() == b"model"


@pytest.mark.parametrize(
    ("flags", "env"),
    [
        (["--anonymous"], {}),
        ([], {"MODELFETCH_ANONYMOUS": "true"}),
        ([], {"awsAnonymousCredential": "true"}),
    ],
)
def test_public_bucket_is_pulled_anonymously_on_request(
    modelfetch: CliRunner, s3_bucket: S3Bucket, tmp_path: Path, flags: list[str], env: dict[str, str]
) -> None:
    """By flag, by variable and by KServe's variable; an object and a directory."""
    if s3_bucket.server.kind == "moto":
        pytest.skip("moto does not go by policies")
    allow = [
        {"Effect": "Allow", "Principal": {"AWS": ["*"]}, "Action": [f"s3:{action}"], "Resource": [resource]}
        for action, resource in (
            ("GetObject", f"arn:aws:s3:::{s3_bucket.bucket}/*"),
            ("ListBucket", f"arn:aws:s3:::{s3_bucket.bucket}"),
        )
    ]
    policy = json.dumps({"Version": "2012-10-17", "Statement": allow})
    s3_bucket.server.client.put_bucket_policy(Bucket=s3_bucket.bucket, Policy=policy)
    put_files(s3_bucket, "d/", MODEL)
    env = {"AWS_ENDPOINT_URL_S3": s3_bucket.endpoint, "AWS_REGION": "us-east-1", **env}

    pairs = [s3_bucket.uri("d/config.json"), tmp_path / "m", s3_bucket.uri("d/"), tmp_path / "d"]
    modelfetch.ok("pull", *flags, *pairs, env=env)

    assert (tmp_path / "m").read_bytes() == b"{}"
    assert read_files(tmp_path / "d") == MODEL


ACCIDENTS = pytest.mark.parametrize(
    ("accident", "word"),
    [
        ("", "empty"),
        ("  ", "empty"),
        ("m\n", "line break"),
        ("m\r\n", "line break"),
        ("$(LOCAL_MODEL_PATH)/", "$(LOCAL_MODEL_PATH)"),
        ("d/${MODEL}/m", "${MODEL}"),
    ],
)


@ACCIDENTS
def test_accident_as_an_argument_exits_2_and_changes_nothing(
    modelfetch: CliRunner, tmp_path: Path, accident: str, word: str
) -> None:
    """Of every command; the working directory is neither published into nor pushed."""
    (modelfetch.home / "work").mkdir()
    (tmp_path / "model").write_bytes(b"weights")
    commands = [
        ("pull", tmp_path / "model", accident),
        ("pull", accident, tmp_path / "m"),
        ("push", accident, "s3://b/m"),
        ("push", tmp_path / "model", accident),
        ("inspect", accident),
        ("verify", accident),
    ]

    runs = [modelfetch(*command, cwd=modelfetch.home / "work") for command in commands]

    assert [run.code for run in runs] == [2] * len(commands)
    assert all(word in run.error["message"] for run in runs)
    assert list((modelfetch.home / "work").iterdir()) == []


@pytest.mark.parametrize("variable", ["LOCAL_MODEL_PATH", "MODELFETCH_SOURCE", "S3_BUCKET", "S3_MODEL_PATH"])
@ACCIDENTS
def test_accident_in_a_variable_exits_78_and_names_the_variable(
    modelfetch: CliRunner, tmp_path: Path, variable: str, accident: str, word: str
) -> None:
    """An empty value is an unset one; blanks, a line break at the end and unexpanded variables are refused."""
    pair = {"S3_BUCKET": "b", "S3_MODEL_PATH": "m", "LOCAL_MODEL_PATH": str(tmp_path / "m")}
    source = {"MODELFETCH_SOURCE": str(tmp_path / "model"), "LOCAL_MODEL_PATH": str(tmp_path / "m")}
    (tmp_path / "model").write_bytes(b"weights")

    run = modelfetch("pull", env={**(pair if variable.startswith("S3") else source), variable: accident})

    assert run.code == 78
    assert variable in run.error["message"] + run.error["hint"]
    assert word in run.error["message"] or accident == ""
    assert not (tmp_path / "m").exists()


def test_space_at_the_end_is_looked_up_as_given_and_shown_in_quotes(
    modelfetch: CliRunner, store: Store, tmp_path: Path
) -> None:
    """A name may end with a space; "not found" shows a space that went unnoticed."""
    store.put("d/m ", b"with a space")

    found = modelfetch("pull", store.uri("d/m "), tmp_path / "m", env=store.env)
    missing = modelfetch("pull", store.uri("d/n "), tmp_path / "n", env=store.env)
    local = modelfetch("pull", f"{tmp_path}/n ", tmp_path / "n")

    assert (found.code, (tmp_path / "m").read_bytes()) == (0, b"with a space")
    assert (missing.code, local.code) == (66, 66)
    assert f"'{store.uri('d/n ')}'" in missing.error["message"]
    assert f"'{tmp_path}/n '" in local.error["message"]
