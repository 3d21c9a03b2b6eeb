"""From training to a prediction on this machine: train, push, pull, serve, predict; `make demo` runs this script.

Argument: the store, `moto` (the default; needs nothing) or a real server, `minio` or `gcs` (built with Go once). All
files are in a temporary directory; all started processes are stopped. Exit code 0 only if every step succeeded.
"""
# ruff: noqa: INP001, S603, T201  a script: prints, and runs its own commands

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

from testkit import servers  # finds, builds and starts the tests' servers

BIN = Path(sys.executable).parent
STORES = {"moto": None, "minio": servers.MINIO, "gcs": servers.FAKE_GCS}
KEYS = {"AWS_ACCESS_KEY_ID": "demo-user", "AWS_SECRET_ACCESS_KEY": "demo-secret", "AWS_REGION": "us-east-1"}
USER_SETTINGS = ("AWS_", "GCS_", "GOOGLE_", "LOCAL_MODEL_PATH", "MODEL", "S3_", "STORAGE_")  # removed before the run
FLOWER = [5.1, 3.5, 1.4, 0.2]
COLOUR = sys.stdout.isatty() and "NO_COLOR" not in os.environ
STARTED = time.monotonic()


def paint_text(code: str, text: str) -> str:
    """Colour the text on a colour terminal."""
    return f"\033[{code}m{text}\033[0m" if COLOUR else text


def print_step(number: int, title: str) -> None:
    """Print the heading of the next step."""
    print(f"\n{paint_text('1;36', f'{number}. {title}')}", flush=True)


def show_command(command: str) -> None:
    """Print a command as a user would type the words."""
    print(f"{paint_text('2', '$')} {paint_text('1', command)}", flush=True)


def require(correct: bool, problem: str) -> None:  # noqa: FBT001  reads as a sentence
    """End the demo with an error unless `correct`."""
    if not correct:
        sys.exit(paint_text("1;31", f"the demo failed: {problem}"))


def run_modelfetch(*words: str) -> None:
    """Show a modelfetch command and run it, output included."""
    show_command(shlex.join(["modelfetch", *words]))
    done = subprocess.run([BIN / "modelfetch", *words], stderr=subprocess.STDOUT, check=False)
    require(done.returncode == 0, f"exit code {done.returncode}")


@contextmanager
def run_store(kind: str, directory: Path) -> Iterator[str]:
    """Run a store with an empty bucket called models and set its address in the environment; yield the URI scheme."""
    program = STORES[kind]
    if program is not None and not program.path.exists():
        require(servers.can_build(), f"STORE={kind} needs Go, once, to build {program.name}; STORE=moto needs nothing")
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


def train_model(path: Path) -> str:
    """Save a random forest trained on irises; return its own prediction for the flower."""
    iris = load_iris()
    forest = RandomForestClassifier(100, random_state=0).fit(iris.data, iris.target_names[iris.target])
    joblib.dump(forest, path)
    print(f"{path.name}: 100 trees, {path.stat().st_size:,} bytes")
    return str(forest.predict([FLOWER])[0])


def receipt_path(model: Path) -> Path:
    """Return the path of a model's receipt."""
    return model.with_name(f"{model.name}.modelfetch-receipt")


def read_receipt(model: Path) -> dict[str, Any]:
    """Read the receipt of a model."""
    receipt: dict[str, Any] = json.loads(receipt_path(model).read_text())
    return receipt


@contextmanager
def run_app(path: Path, log: Path) -> Iterator[str]:
    """Run the app until the block ends; yield its address once ready."""
    port = servers.free_port()
    show_command(f"MODEL_PATH={path} modelserve --port {port} &")
    settings = {"MODEL_PATH": str(path), "MODELSERVE_DRAIN": "0"}  # no load balancer needs a grace period
    with servers.run_server(
        [str(BIN / "modelserve"), "--port", str(port)], f"http://127.0.0.1:{port}/readyz", log, settings
    ):
        print("ready")
        yield f"http://127.0.0.1:{port}"


def predict_flower(app: str) -> list[str]:
    """Send the flower to the app and return the prediction."""
    body = json.dumps({"features": [FLOWER]})
    show_command(f"curl {app}/predict -d '{body}'")
    with urllib.request.urlopen(f"{app}/predict", data=body.encode(), timeout=10) as reply:  # noqa: S310  our own app
        answer: dict[str, list[str]] = json.load(reply)
    print(json.dumps(answer))
    return answer["prediction"]


def main(kind: str) -> None:
    """Run every step of the demo."""
    Path("laptop").mkdir()
    trained, pulled = Path("laptop/model.joblib"), Path("volume/iris/model.joblib")
    print_step(1, "Train a model")
    expected_class = train_model(trained)
    print_step(2, f"Start a store: {STORES[kind] or 'moto'}")
    with run_store(kind, Path("store")) as scheme:
        source = f"{scheme}://models/iris/v1/model.joblib"
        print_step(3, "Publish the model")
        run_modelfetch("push", str(trained), source)
        print_step(4, "Pull it, as the init container does")
        run_modelfetch("pull", source, str(pulled))
        require(pulled.read_bytes() == trained.read_bytes(), "what was pulled is not what was pushed")
        print_step(5, f"Look at the receipt, {receipt_path(pulled).name}")
        receipt = read_receipt(pulled)
        for key, value in receipt.items():
            print(f"  {key:<13} {json.dumps(value)}")
        print_step(6, "Serve it")
        with run_app(pulled, Path("modelserve.log")) as app:
            print_step(7, "Predict")
            answer = predict_flower(app)
            require(answer == [expected_class], f"the model itself says {expected_class}, the app says {answer}")
        print_step(8, "Pull again: it is there, so nothing is done")
        run_modelfetch("pull", source, str(pulled))
        require(read_receipt(pulled) == receipt, "the model was pulled again")
    print(
        paint_text(
            "1;32",
            f"\nThe app says what the model says: {expected_class}. {time.monotonic() - STARTED:.0f} s, all stopped.",
        )
    )


if __name__ == "__main__":
    store = sys.argv[1] if sys.argv[1:] else os.environ.get("STORE", "moto")
    require(store in STORES, f"STORE is {store!r}; it can be {', '.join(STORES)}")
    for number in (signal.SIGINT, signal.SIGTERM):  # exceptions unwind the stack and stop the servers
        signal.signal(number, lambda signum, _: sys.exit(128 + signum))
    for name in [name for name in os.environ if name.startswith(USER_SETTINGS)]:
        del os.environ[name]
    os.environ["NO_PROXY"] = "127.0.0.1"
    with tempfile.TemporaryDirectory(prefix="modelfetch-demo-") as work:
        os.environ.update(AWS_CONFIG_FILE=f"{work}/none", AWS_SHARED_CREDENTIALS_FILE=f"{work}/none")
        os.chdir(work)
        try:
            main(store)
        finally:
            os.chdir("/")
