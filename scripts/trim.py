"""Remove unused data from installed packages; Dockerfile.init calls this script with their directory.

botocore brings models and endpoints of some 440 services, and reads through most of them to make one client. rich
brings Pygments, with lexers for some 500 languages. The rest answers as before: tests/container/test_trim.py compares.
"""
# ruff: noqa: INP001, T201  a script: prints

import gzip
import json
import shutil
import sys
from pathlib import Path
from typing import Any

# S3, and every service that botocore's credential providers call: assumed roles, web identity, SSO and `aws login`.
SERVICES = {"s3", "sts", "sso", "sso-oidc", "signin"}
# Read only to write documentation, and most of a model's size.
DOCUMENTATION = "documentation"
LEXERS = {"__init__.py", "_mapping.py", "python.py", "special.py"}  # tracebacks and plain text


def trim_botocore(data: Path) -> None:
    """Keep the data of `SERVICES` and the services' endpoints in every partition, uncompressed."""
    for directory in data.iterdir():
        if directory.is_dir() and directory.name not in SERVICES:
            shutil.rmtree(directory)
    prefixes = set()
    for zipped in data.glob("*/*/*.json.gz"):
        content = json.loads(gzip.decompress(zipped.read_bytes()))
        if zipped.name == "service-2.json.gz":
            prefixes.add(content["metadata"]["endpointPrefix"])
            for part in ("operations", "shapes"):
                content[part] = drop_documentation(content[part])
        write_json(zipped.with_suffix(""), content)
        zipped.unlink()
    for examples in data.glob("*/*/examples-1.json"):
        examples.unlink()
    endpoints = json.loads((data / "endpoints.json").read_bytes())
    for partition in endpoints["partitions"]:
        partition["services"] = {name: found for name, found in partition["services"].items() if name in prefixes}
    write_json(data / "endpoints.json", endpoints)


def drop_documentation(content: Any) -> Any:  # noqa: ANN401  any JSON value
    """Return the content without documentation; a member named `documentation` is no text, and stays."""
    match content:
        case dict():
            return {
                key: drop_documentation(value)
                for key, value in content.items()
                if key != DOCUMENTATION or not isinstance(value, str)
            }
        case list():
            return [drop_documentation(value) for value in content]
        case _:
            return content


def write_json(path: Path, content: Any) -> None:  # noqa: ANN401  as above
    """Write JSON in the smallest form."""
    path.write_text(json.dumps(content, separators=(",", ":")))


def trim_pygments(lexers: Path) -> None:
    """Keep Python's lexer, needed to show a traceback."""
    for lexer in lexers.glob("*.py"):
        if lexer.name not in LEXERS:
            lexer.unlink()


def main() -> None:
    """Trim the packages present: an image for one cloud has no botocore."""
    packages = Path(sys.argv[1])
    for directory, trim in ((packages / "botocore/data", trim_botocore), (packages / "pygments/lexers", trim_pygments)):
        if directory.is_dir():
            trim(directory)
            print(f"trimmed {directory}")


if __name__ == "__main__":
    main()
