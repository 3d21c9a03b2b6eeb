"""From a trained model to a prediction, on this machine: train, push, pull, serve, predict; `make demo` runs it.

Takes the store as its argument: `moto` (the default; needs nothing), or the real servers `minio` and `gcs` (built with
Go once). It works in a temporary directory and stops what it started. Exit code 0 only if every step was right.
"""
# ruff: noqa: INP001, S603, T201  a script: it prints, and runs its own commands

import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import joblib
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier

from testkit import servers  # the tests' way to find, build and start a server

BIN = Path(sys.executable).parent
STORES = {"moto": None, "minio": servers.MINIO, "gcs": servers.FAKE_GCS}
KEYS = {"AWS_ACCESS_KEY_ID": "demo-user", "AWS_SECRET_ACCESS_KEY": "demo-secret", "AWS_REGION": "us-east-1"}
OF_THE_USER = ("AWS_", "GCS_", "GOOGLE_", "LOCAL_MODEL_PATH", "MODEL", "S3_", "STORAGE_")  # settings that would mix in
FLOWER = [5.1, 3.5, 1.4, 0.2]
COLOUR = sys.stdout.isatty() and "NO_COLOR" not in os.environ
STARTED = time.monotonic()


def paint(code: str, text: str) -> str:
    """The text in a colour, where there are colours."""
    return f"\033[{code}m{text}\033[0m" if COLOUR else text


def step(number: int, title: str) -> None:
    """Head the next step."""
    print(f"\n{paint('1;36', f'{number}. {title}')}", flush=True)


def show(command: str) -> None:
    """Print a command as its user would type it."""
    print(f"{paint('2', '$')} {paint('1', command)}", flush=True)


def expect(right: bool, what: str) -> None:  # noqa: FBT001  it reads as a sentence
    """End the demo unless it is right."""
    if not right:
        sys.exit(paint("1;31", f"the demo failed: {what}"))


def modelfetch(*words: str) -> None:
    """Show a command and run it, with its output where ours goes."""
    show(shlex.join(["modelfetch", *words]))
    done = subprocess.run([BIN / "modelfetch", *words], stderr=subprocess.STDOUT, check=False)
    expect(done.returncode == 0, f"exit code {done.returncode}")


@contextmanager
def running_store(kind: str, directory: Path) -> Iterator[str]:
    """A store with an empty bucket called models, its address in the environment; gives the scheme of its URIs."""
    program = STORES[kind]
    if program is not None and not program.path.exists():
        expect(servers.can_build(), f"STORE={kind} needs Go, once, to build {program.name}; STORE=moto needs nothing")
        print(f"building {program}, once: a minute or two", flush=True)
    directory.mkdir()
    if kind == "gcs":
        with servers.run_fake_gcs(directory) as endpoint:
            os.environ["STORAGE_EMULATOR_HOST"] = endpoint
            nobody = AnonymousCredentials()  # type: ignore[no-untyped-call]  # google-auth is partly typed
            storage.Client(project="demo", credentials=nobody).create_bucket("models")
            print(f"STORAGE_EMULATOR_HOST={endpoint}")
            yield "gs"
        return
    minio = servers.run_minio(directory, KEYS["AWS_ACCESS_KEY_ID"], KEYS["AWS_SECRET_ACCESS_KEY"])
    with minio if kind == "minio" else servers.run_moto(directory) as endpoint:
        os.environ.update(KEYS, AWS_ENDPOINT_URL_S3=endpoint)
        boto3.client("s3").create_bucket(Bucket="models")
        print(f"AWS_ENDPOINT_URL_S3={endpoint}")
        yield "s3"


def train(path: Path) -> str:
    """Save a random forest that knows irises; gives its own answer for the flower."""
    iris = load_iris()
    forest = RandomForestClassifier(100, random_state=0).fit(iris.data, iris.target_names[iris.target])
    joblib.dump(forest, path)
    print(f"{path.name}: 100 trees, {path.stat().st_size:,} bytes")
    return str(forest.predict([FLOWER])[0])


def receipt_path(model: Path) -> Path:
    """Where `modelfetch` leaves what it knows of a model."""
    return model.with_name(f"{model.name}.modelfetch.json")


def read(model: Path) -> dict[str, Any]:
    """The model's receipt."""
    receipt: dict[str, Any] = json.loads(receipt_path(model).read_text())
    return receipt


@contextmanager
def serving(path: Path, log: Path) -> Iterator[str]:
    """The app, ready; gives its address."""
    port = servers.free_port()
    show(f"MODEL_PATH={path} modelserve --port {port} &")
    settings = {"MODEL_PATH": str(path), "MODELSERVE_DRAIN": "0"}  # nobody has to hear that it stops
    with servers.run_server(
        [str(BIN / "modelserve"), "--port", str(port)], f"http://127.0.0.1:{port}/readyz", log, settings
    ):
        print("ready")
        yield f"http://127.0.0.1:{port}"


def predict(app: str) -> list[str]:
    """Ask the app what flower it is."""
    body = json.dumps({"features": [FLOWER]})
    show(f"curl {app}/predict -d '{body}'")
    with urllib.request.urlopen(f"{app}/predict", data=body.encode(), timeout=10) as reply:  # noqa: S310  our own app
        answer: dict[str, list[str]] = json.load(reply)
    print(json.dumps(answer))
    return answer["prediction"]


def main(kind: str) -> None:
    """Run every step."""
    Path("laptop").mkdir()
    mine, theirs = Path("laptop/model.joblib"), Path("volume/iris/model.joblib")
    step(1, "Train a model")
    own = train(mine)
    step(2, f"Start a store: {STORES[kind] or 'moto'}")
    with running_store(kind, Path("store")) as scheme:
        source = f"{scheme}://models/iris/v1/model.joblib"
        step(3, "Publish the model")
        modelfetch("push", str(mine), source)
        step(4, "Pull it, as the init container does")
        modelfetch("pull", source, str(theirs))
        expect(theirs.read_bytes() == mine.read_bytes(), "what was pulled is not what was pushed")
        step(5, f"Look at the receipt, {receipt_path(theirs).name}")
        receipt = read(theirs)
        for key, value in receipt.items():
            print(f"  {key:<13} {json.dumps(value)}")
        step(6, "Serve it")
        with serving(theirs, Path("modelserve.log")) as app:
            step(7, "Predict")
            answer = predict(app)
            expect(answer == [own], f"the model itself says {own}, the app says {answer}")
        step(8, "Pull again: it is there, so nothing is done")
        modelfetch("pull", source, str(theirs))
        expect(read(theirs) == receipt, "the model was pulled again")
    print(paint("1;32", f"\nThe app says what the model says: {own}. {time.monotonic() - STARTED:.0f} s, all stopped."))


if __name__ == "__main__":
    chosen = sys.argv[1] if sys.argv[1:] else os.environ.get("STORE", "moto")
    expect(chosen in STORES, f"STORE is {chosen!r}; it can be {', '.join(STORES)}")
    for number in (signal.SIGINT, signal.SIGTERM):  # unwinds, so that what was started is stopped
        signal.signal(number, lambda signum, _: sys.exit(128 + signum))
    for name in [name for name in os.environ if name.startswith(OF_THE_USER)]:
        del os.environ[name]
    os.environ["NO_PROXY"] = "127.0.0.1"
    with tempfile.TemporaryDirectory(prefix="modelfetch-demo-") as work:
        os.environ.update(AWS_CONFIG_FILE=f"{work}/none", AWS_SHARED_CREDENTIALS_FILE=f"{work}/none")
        os.chdir(work)
        try:
            main(chosen)
        finally:
            os.chdir("/")
