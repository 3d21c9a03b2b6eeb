"""`python -m modelserve`, and the console script."""

import sys


def main() -> int:
    """Serve; without the libraries of the extra, say which to install."""
    try:
        from modelserve.app import main as serve  # noqa: PLC0415  may not be installed
    except ModuleNotFoundError as error:
        sys.stderr.write(f"error: modelserve needs {error.name}. Run: pip install 'modelfetch[serve,sklearn]'\n")
        return 78
    return serve()


if __name__ == "__main__":
    sys.exit(main())
