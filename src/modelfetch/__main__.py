"""The process. Signals are minded first: to load the rest takes half a second, in which PID 1 would not hear them."""

from typing import NoReturn

from modelfetch import interrupts


def main() -> NoReturn:
    """The console script."""
    interrupts.install(held=True)
    from modelfetch import cli  # noqa: PLC0415  see above

    cli.main()


if __name__ == "__main__":
    main()
