"""The tables of the README that the code decides on.

`python tests/contract/tables.py` writes them into the README anew; the tests compare.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from modelfetch import errors
from modelfetch.cli.settings import Settings, format_value, list_variables

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"


def between(name: str) -> re.Pattern[str]:
    """What stands between the markers of a table."""
    return re.compile(rf"(?<=<!-- {name} -->\n).*?(?=<!-- end of {name} -->)", re.DOTALL)


def tables() -> dict[str, str]:
    """Each table by the name of its markers."""
    return {"settings": _settings(), "exit codes": _exit_codes()}


def _settings() -> str:
    rows = ["| variable | default | meaning |", "|---|---|---|"]
    for field, info in Settings.model_fields.items():
        names = ", ".join(f"`{name}`" for name in list_variables(field))
        rows.append(f"| {names} | {_code(format_value(field, info.default))} | {info.description} |")
    return "\n".join(rows) + "\n"


def _code(value: str) -> str:
    return f"`{value}`" if value else ""


def _exit_codes() -> str:
    rows = ["| code | reason | what happened |", "|---|---|---|", "| 0 | | Done, or it was there already. |"]
    classes = sorted(_tree(errors.ModelfetchError), key=lambda kind: kind.code)
    named = [(kind.code, kind.reason, (kind.__doc__ or "").splitlines()[0]) for kind in classes]
    named.append((errors.BUG_CODE, "bug", "A bug of modelfetch: please report it."))
    rows += [f"| {code} | `{reason}` | {text} |" for code, reason, text in sorted(named, key=lambda row: row[0])]
    return "\n".join([*rows, "| 130, 143 | `interrupted` | SIGINT or SIGTERM asked it to stop. |"]) + "\n"


def _tree(kind: type[errors.ModelfetchError]) -> Iterator[type[errors.ModelfetchError]]:
    for child in kind.__subclasses__():
        yield child
        yield from _tree(child)


def main() -> None:
    """Write the tables into the README."""
    text = README.read_text(encoding="utf-8")
    for name, table in tables().items():
        text, count = between(name).subn(table.replace("\\", r"\\"), text)
        assert count == 1, name
    README.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
