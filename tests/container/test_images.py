"""Content and configuration of the images."""

import json
from collections.abc import Callable
from typing import Any

import pytest

import modelfetch

pytestmark = [pytest.mark.container, pytest.mark.timeout(1800), pytest.mark.slow]
COMPILED_SCRIPT = """
import importlib.util, json, os, sys
importlib.import_module(sys.argv[1])
files = {f for m in sys.modules.values() if (f := getattr(m, "__file__", None) or "").endswith(".py")}
def unchecked(f):
    cached = importlib.util.cache_from_source(f)
    return os.path.exists(cached) and open(cached, "rb").read(8)[4:] == bytes([1, 0, 0, 0])  # PEP 552
print(json.dumps([len(files), [f for f in files if not unchecked(f)]]))
"""
DISK_USAGE_SCRIPT = """
import pathlib, sysconfig
packages = pathlib.Path(sysconfig.get_path("purelib"))
print(sum(path.lstat().st_blocks * 512 for path in packages.rglob("*")))
"""
Inspect = Callable[[str], dict[str, Any]]


def run_python(podman: Any, image: str, *args: str) -> Any:
    """Run Python in an image."""
    return podman("run", "--rm", "--read-only", "--network=none", "--entrypoint=python", image, *args)


def test_init_image_has_the_pull_command_as_entry_point(images: Any, image_config: Inspect) -> None:
    """KServe appends pairs to the entry point; runAsNonRoot needs a numeric user."""
    init = image_config(images.init)

    assert init["Entrypoint"] == ["env", "--block-signal=TERM,INT", "modelfetch", "pull"]
    assert not init.get("Cmd")
    assert init["User"] == "65532:65532"


def test_app_image_serves_port_8000_on_all_addresses(images: Any, image_config: Inspect) -> None:
    """The entry point is modelserve, under the same numeric user."""
    app = image_config(images.app)

    assert app["Entrypoint"] == ["env", "--block-signal=TERM,INT", "modelserve"]
    assert not app.get("Cmd")
    assert app["User"] == "65532:65532"
    assert list(app["ExposedPorts"]) == ["8000/tcp"]
    assert "MODELSERVE_HOST=0.0.0.0" in app["Env"]


@pytest.mark.parametrize("kind", ["init", "app"])
def test_labels_name_version_and_licence(kind: str, images: Any, image_config: Inspect) -> None:
    """Each image carries the OCI labels for version and licence."""
    labels = image_config(getattr(images, kind))["Labels"]

    assert labels["org.opencontainers.image.version"] == modelfetch.__version__
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"


@pytest.mark.parametrize(("kind", "module"), [("init", "modelfetch.cli.app"), ("init", "boto3"), ("init", "google.cloud.storage"), ("app", "modelserve.process.command"), ("app", "sklearn.ensemble")])  # fmt: skip  # noqa: E501
def test_every_imported_module_has_unchecked_bytecode(kind: str, module: str, images: Any, podman: Any) -> None:
    """A read-only root cannot add bytecode: every module is compiled and valid for any file time."""
    run = run_python(podman, getattr(images, kind), "-c", COMPILED_SCRIPT, module)

    assert run.returncode == 0, run.stderr
    count, missing = json.loads(run.stdout)
    assert count > 50
    assert missing == []


def test_packages_of_the_init_image_take_less_than_90_mb(images: Any, podman: Any) -> None:
    """Disk usage with both SDKs, bytecode included."""
    run = run_python(podman, images.init, "-c", DISK_USAGE_SCRIPT)

    assert run.returncode == 0, run.stderr
    assert 20_000_000 < int(run.stdout) < 90_000_000


@pytest.mark.parametrize(
    ("kind", "modules"),
    [("init", ["fastapi", "sklearn", "numpy", "pip"]), ("app", ["boto3", "google.cloud", "typer", "pip"])],
)
def test_images_hold_no_package_of_the_other_image(kind: str, modules: list[str], images: Any, podman: Any) -> None:
    """No web server in the init image, no cloud SDK in the app image, no installer in either."""
    found = "import importlib.util as u, sys; print([m for m in sys.argv[1:] if u.find_spec(m.split('.')[0])])"

    run = run_python(podman, getattr(images, kind), "-c", found, *modules)

    assert (run.returncode, run.stdout.strip()) == (0, "[]"), run.stderr


@pytest.mark.parametrize("kind", ["init", "app"])
def test_images_hold_no_certificate_or_setting_of_the_builder(kind: str, images: Any, podman: Any) -> None:
    """Files needed to reach a private package index during the build are not in the image."""
    run = podman(
        "run", "--rm", "--entrypoint=sh", getattr(images, kind), "-c", "cat /etc/pip.conf; ls ~root/.cache /build"
    )

    assert run.returncode != 0
    assert run.stdout.strip() == ""
