"""Draw docs/pictures/demo.svg, the README's picture, from the output of `make demo` in a real terminal. Needs tmux."""
# ruff: noqa: INP001, S603  a script: runs tmux and the demo

import io
import os
import re
import subprocess
import sys
import time
from pathlib import Path

from rich.console import CONSOLE_SVG_FORMAT, Console  # type: ignore[attr-defined]  # documented, not exported
from rich.terminal_theme import MONOKAI
from rich.text import Text

HERE = Path(__file__).parent
PICTURE = HERE.parent / "docs" / "pictures" / "demo.svg"
COLUMNS, ROWS = 104, 80
END = "== end, "
TMUX = ["tmux", "-L", f"picture-{os.getpid()}"]


def capture_screen() -> str:
    """Return the terminal's content after the demo, with colours."""
    shell = f"{sys.executable} {HERE / 'demo.py'}; echo '{END}'$?; sleep 60"
    size = ["-x", str(COLUMNS), "-y", str(ROWS)]
    subprocess.run([*TMUX, "-f", "/dev/null", "new-session", "-d", "-e", "TMPDIR=/var/tmp", *size, shell], check=True)
    screen = ""
    try:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            screen = subprocess.run(
                [*TMUX, "capture-pane", "-e", "-p"], capture_output=True, text=True, check=True
            ).stdout
            if f"{END}0" in screen:
                return screen.partition(END)[0]
            time.sleep(0.5)
    finally:
        subprocess.run([*TMUX, "kill-server"], check=True)
    sys.exit(f"the demo did not end well:\n{screen}")


def draw_svg(screen: str) -> str:
    """Draw the screen as SVG, in the viewer's own monospaced font."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    console.print(Text.from_ansi("\033[1m$ make demo\033[0m\n" + screen.rstrip()))
    layout = re.sub(r"@font-face \{\{.*?\}\}\s*|<!--.*?-->\s*", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    layout = layout.replace("Fira Code", "ui-monospace, SFMono-Regular, Menlo, Consolas")
    return console.export_svg(title="modelfetch", theme=MONOKAI, code_format=layout, unique_id="demo")


if __name__ == "__main__":
    PICTURE.write_text(draw_svg(capture_screen()) + "\n", encoding="utf-8")
