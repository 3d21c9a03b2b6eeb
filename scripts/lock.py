"""Write requirements/*.txt and bench/*.txt anew from pyproject.toml; `make lock` calls this script.

Fitting pins are kept; `make lock UPGRADE=1` takes the newest of everything. All files agree on every version, so the
images hold the tested versions; only the competitors in `make bench` have their own. No file names a package index:
the index is pip's own setting.
"""
# ruff: noqa: INP001, S603, T201  a script: prints, and runs its own commands

import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
OPTIONS = ["--universal", "--python-version=3.11", "--generate-hashes", "--no-annotate", "--no-header", "--quiet"]
NO_ADDRESS = ["--no-emit-index-url", "--no-emit-find-links"]


def compile_lock(name: str, requirements: list[str], extra: list[str], directory: str = "requirements") -> None:
    """Write DIRECTORY/NAME.txt for the given requirements, with every dependency pinned and hashed."""
    output = f"{directory}/{name}.txt"
    command = [
        sys.executable,
        "-m",
        "uv",
        "pip",
        "compile",
        "-",
        f"--output-file={output}",
        *OPTIONS,
        *NO_ADDRESS,
        *extra,
    ]
    subprocess.run(command, cwd=ROOT, input="\n".join(requirements), text=True, check=True, stdout=subprocess.DEVNULL)
    print(output, file=sys.stderr)


def exclude_package(requirements: list[str], package: str) -> list[str]:
    """Leave out one package: an image for one cloud needs no SDK of the other cloud."""
    return [line for line in requirements if not line.startswith(package)]


def main() -> None:
    """Lock the developers' set first and hold the images to its versions."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    base = project["project"]["dependencies"]
    extras = project["project"]["optional-dependencies"]
    app = [*extras["serve"], *extras["sklearn"]]
    sign = extras["sign"]
    dev = [line for line in extras["dev"] if not line.startswith("modelfetch[")]
    build = project["build-system"]["requires"]

    compile_lock("dev", [*base, *app, *sign, *dev, *build], sys.argv[1:])
    same = ["--constraint=requirements/dev.txt"]
    compile_lock("init", base, same)
    compile_lock("init-s3", exclude_package(base, "google-cloud-storage"), same)
    compile_lock("init-gcs", exclude_package(base, "boto3"), same)
    compile_lock("sign", sign, same)
    compile_lock("app", app, same)
    compile_lock("build", build, same)
    for group in ("bench", "kserve"):
        compile_lock(group, project["dependency-groups"][group], sys.argv[1:], "bench")


if __name__ == "__main__":
    main()
