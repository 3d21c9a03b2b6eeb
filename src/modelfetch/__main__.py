"""The process. Signals are minded first: to load the rest takes half a second, in which PID 1 would not hear them."""

import gc
from typing import NoReturn

from modelfetch import signals


def main() -> NoReturn:
    """The console script."""
    signals.install(held=True)
    gc.disable()  # until `open_source` has opened a store: what libraries make as they load, they keep
    from modelfetch.cli import app as cli  # noqa: PLC0415  see above

    cli.main()


if __name__ == "__main__":
    main()
