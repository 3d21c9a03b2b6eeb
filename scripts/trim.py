"""Take out of installed packages what modelfetch never reads; Dockerfile.init calls it with the directory they are in.

botocore brings models and endpoints of some 440 services, and looks through most of it to make one client. rich brings
Pygments, which knows some 500 languages. What is left answers as before: tests/container/test_trim.py compares.
"""
# ruff: noqa: INP001, T201  a script: it prints

import gzip
import json
import shutil
import sys
from pathlib import Path
from typing import Any

# S3, and every service that botocore's credential providers call: assumed roles, web identity, SSO and `aws login`.
SERVICES = {"s3", "sts", "sso", "sso-oidc", "signin"}
# What is only read to write documentation: the prose of a model is most of it.
PROSE = "documentation"
LEXERS = {"__init__.py", "_mapping.py", "python.py", "special.py"}  # tracebacks and plain text


def trim_botocore(data: Path) -> None:
    """Leave the services of `SERVICES` in botocore's data, their endpoints in every partition, and no gzip to undo."""
    for directory in data.iterdir():
        if directory.is_dir() and directory.name not in SERVICES:
            shutil.rmtree(directory)
    prefixes = set()
    for zipped in data.glob("*/*/*.json.gz"):
        content = json.loads(gzip.decompress(zipped.read_bytes()))
        if zipped.name == "service-2.json.gz":
            prefixes.add(content["metadata"]["endpointPrefix"])
            for part in ("operations", "shapes"):
                content[part] = without_prose(content[part])
        write(zipped.with_suffix(""), content)
        zipped.unlink()
    for examples in data.glob("*/*/examples-1.json"):
        examples.unlink()
    endpoints = json.loads((data / "endpoints.json").read_bytes())
    for partition in endpoints["partitions"]:
        partition["services"] = {name: found for name, found in partition["services"].items() if name in prefixes}
    write(data / "endpoints.json", endpoints)


def without_prose(content: Any) -> Any:  # noqa: ANN401  whatever JSON holds
    """The content without its documentation; a member of that name is no text, and stays."""
    match content:
        case dict():
            return {
                key: without_prose(value)
                for key, value in content.items()
                if key != PROSE or not isinstance(value, str)
            }
        case list():
            return [without_prose(value) for value in content]
        case _:
            return content


def write(path: Path, content: Any) -> None:  # noqa: ANN401  as above
    """Write JSON as small as it gets."""
    path.write_text(json.dumps(content, separators=(",", ":")))


def trim_pygments(lexers: Path) -> None:
    """Leave Python's lexer: it would be asked for to show a traceback."""
    for lexer in lexers.glob("*.py"):
        if lexer.name not in LEXERS:
            lexer.unlink()


def main() -> None:
    """Trim what is there: an image for one cloud has no botocore."""
    packages = Path(sys.argv[1])
    for directory, trim in ((packages / "botocore/data", trim_botocore), (packages / "pygments/lexers", trim_pygments)):
        if directory.is_dir():
            trim(directory)
            print(f"trimmed {directory}")


if __name__ == "__main__":
    main()
