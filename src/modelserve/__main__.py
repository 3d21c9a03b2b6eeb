"""Entry point of `python -m modelserve` and of the console script."""

import sys


def main() -> int:
    """Serve the model; without the libraries of the `serve` extra, print the install command."""
    try:
        from modelserve.process.command import run_server  # noqa: PLC0415  may not be installed
    except ModuleNotFoundError as error:
        sys.stderr.write(f"error: modelserve needs {error.name}. Run: pip install 'modelfetch[serve,sklearn]'\n")
        return 78
    return run_server()


if __name__ == "__main__":
    sys.exit(main())
