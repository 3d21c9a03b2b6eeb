"""Process entry: signal handlers before the imports, because PID 1 would miss signals for half a second."""

import gc
import os
import sys
from typing import NoReturn

from modelfetch.signals import SignalGuard


def main() -> NoReturn:
    """Run the process of the console script."""
    _ensure_utf8_names()
    with SignalGuard(held=True) as guard:
        gc.disable()  # until `resume_collection`: objects that libraries create at import stay alive anyway
        from modelfetch.cli import app as cli  # noqa: PLC0415  see above

        cli.main(guard, on_ready=resume_collection)


def _ensure_utf8_names() -> None:
    """Start again in Python's UTF-8 mode if the locale cannot name every file: keys of a store are UTF-8."""
    if sys.getfilesystemencoding() != "utf-8" and os.environ.get("PYTHONUTF8") != "1":
        os.environ["PYTHONUTF8"] = "1"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606  the same program


def resume_collection() -> None:
    """Enable garbage collection, except among objects of the start: a scan took an eighth of the start's time."""
    if not gc.isenabled():
        gc.freeze()
        gc.enable()


if __name__ == "__main__":
    main()
