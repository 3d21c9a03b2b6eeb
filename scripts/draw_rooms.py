"""Draw docs/pictures/rooms.svg, the rooms of both packages and the imports between them.

Layers come from the import contracts of pyproject.toml, arrows from the import statements of `src/`. An arrow is left
out where a path of other arrows leads to the same room; each room's `<title>` lists all its imports.
"""
# ruff: noqa: INP001  a script

import ast
import re
import tomllib
from collections.abc import Iterator, Sequence
from graphlib import TopologicalSorter
from itertools import pairwise, permutations
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
PICTURE = ROOT / "docs/pictures/rooms.svg"
WIDTHS = {"modelfetch": 720, "modelserve": 430}  # of the packages' columns, in pixels
BOX_WIDTH, BOX_HEIGHT, ROW_HEIGHT, TOP = 112, 34, 82, 78
# Legible on white and on black: a transparent background, boxes with their own fill, lines and labels in mid-grey.
STYLE = """
  text { font: 14px system-ui, 'Segoe UI', Helvetica, Arial, sans-serif; text-anchor: middle; }
  .label { font-weight: 600; font-size: 16px; fill: #7d8792; }
  .note { font-size: 12px; fill: #7d8792; }
  .room { fill: #e6effb; stroke: #4a7fc1; }
  .name { fill: #16324f; font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; font-size: 13px; }
  .import { fill: none; stroke: #7d8792; stroke-width: 1.3; marker-end: url(#tip); }
"""
DEFINITIONS = (
    '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
    '<path d="M0 0 8 4 0 8z" fill="#7d8792"/></marker></defs>'
)

Imports = dict[str, set[str]]
Row = tuple[str, ...]


class Point(NamedTuple):
    """Place in the picture, in pixels from the upper left corner."""

    x: float
    y: float


def read_layers(package: str) -> list[Row]:
    """Return the rooms of each layer of a package's import contract, from top to bottom."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    layers = next(each["layers"] for each in contracts if each.get("containers") == [package])
    return [tuple(re.split(r" *[|:] *", layer)) for layer in layers]


def read_imports(package: str, rooms: Sequence[str]) -> Imports:
    """Return the rooms that each room imports."""
    imports: Imports = {room: set() for room in rooms}
    base = ROOT / "src" / package
    for path in base.rglob("*.py"):
        room = path.relative_to(base).parts[0].removesuffix(".py")
        if room in imports:
            imports[room] |= {name for name in find_imports(package, path) if name in imports and name != room}
    return imports


def find_imports(package: str, path: Path) -> Iterator[str]:
    """Yield the first name below the package of each import in a module."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        yield from (name.split(".")[1] for name in names if name.startswith(f"{package}."))


def reduce_imports(imports: Imports) -> list[tuple[str, str]]:
    """Return the imports that no path of other imports replaces.

    Raises:
        CycleError: rooms import each other in a circle.
    """
    reachable: Imports = {}
    arrows = []
    for room in TopologicalSorter(imports).static_order():
        indirect = {far for near in imports[room] for far in reachable[near]}
        arrows += [(room, near) for near in imports[room] - indirect]
        reachable[room] = imports[room] | indirect
    return sorted(arrows)


def place_rooms(
    layers: Sequence[Row], arrows: Sequence[tuple[str, str]], left: float, width: float
) -> dict[str, Point]:
    """Return the centre of each room; each row is ordered for short arrows to the rows above and below."""
    rows = list(layers)
    places = {room: point for y, row in enumerate(rows) for room, point in place_row(row, y, left, width).items()}
    for y in [*range(len(rows)), *reversed(range(len(rows)))]:
        candidates = [places | place_row(order, y, left, width) for order in permutations(sorted(rows[y]))]
        places = min(candidates, key=lambda trial: sum((trial[a].x - trial[b].x) ** 2 for a, b in arrows))
    return places


def place_row(row: Row, y: int, left: float, width: float) -> dict[str, Point]:
    """Return the centres of a row's rooms, spread evenly over the width."""
    step = width / len(row)
    return {room: Point(left + (x + 0.5) * step, TOP + y * ROW_HEIGHT) for x, room in enumerate(row)}


def draw_arrow(start: Point, end: Point, places: dict[str, Point], shifts: tuple[float, float], lane: int) -> str:
    """Return a line from room to room that passes between the boxes of the rows between; lanes keep lines apart."""
    half = BOX_HEIGHT / 2
    if start.y == end.y:
        side = 1 if end.x > start.x else -1
        near, far = start.x + side * BOX_WIDTH / 2, end.x - side * BOX_WIDTH / 2
        if not any(min(near, far) < point.x < max(near, far) for point in places.values() if point.y == start.y):
            return f'<path class="import" d="M{near:.0f} {start.y:.0f}H{far:.0f}"/>'
        top = start.y - half
        return (
            f'<path class="import" d="M{start.x + side * 30:.0f} {top:.0f}'
            f"C{start.x + side * 60:.0f} {top - 26:.0f} {end.x - side * 60:.0f} {top - 26:.0f}"
            f' {end.x - side * 30:.0f} {top:.0f}"/>'
        )
    stops = [Point(start.x + shifts[0], start.y + half)]
    for row in sorted({point.y for point in places.values() if start.y < point.y < end.y}):
        wish = start.x + (end.x - start.x) * (row - start.y) / (end.y - start.y)
        gap = nearest_gap(wish, [point.x for point in places.values() if point.y == row], lane)
        stops += [Point(gap, row - half), Point(gap, row + half)]
    stops.append(Point(end.x + shifts[1], end.y - half))
    line = f"M{stops[0].x:.0f} {stops[0].y:.0f}"
    for here, there in pairwise(stops):
        middle = (here.y + there.y) / 2
        curve = f"C{here.x:.0f} {middle:.0f} {there.x:.0f} {middle:.0f} {there.x:.0f} {there.y:.0f}"
        line += f"V{there.y:.0f}" if here.x == there.x else curve
    return f'<path class="import" d="{line}"/>'


def nearest_gap(wish: float, centres: Sequence[float], lane: int) -> float:
    """Return the x closest to the wish that no box of a row covers."""
    margin = BOX_WIDTH / 2 + 8 + 7 * lane
    edges = [centre + side * margin for centre in centres for side in (-1, 1)]
    free = [x for x in (wish, *edges) if all(abs(x - centre) >= margin - 0.01 for centre in centres)]
    return min(free, key=lambda x: abs(x - wish))


def spread_ends(arrows: Sequence[tuple[str, str]], places: dict[str, Point], end: int) -> dict[tuple[str, str], float]:
    """Return how far each arrow's start (end 0) or tip (end 1) lies from its room's centre, so that none overlap."""
    shifts: dict[tuple[str, str], float] = {}
    for room in places:
        mine = [arrow for arrow in arrows if arrow[end] == room and places[arrow[0]].y != places[arrow[1]].y]
        mine.sort(key=lambda arrow: (places[arrow[1 - end]].x, arrow))
        step = min(20.0, (BOX_WIDTH - 20) / max(len(mine), 1))
        shifts |= {arrow: (rank - (len(mine) - 1) / 2) * step for rank, arrow in enumerate(mine)}
    return shifts


def draw_package(package: str, left: float, width: float) -> list[str]:
    """Return the arrows and boxes of a package, as lines of SVG."""
    layers = read_layers(package)
    imports = read_imports(package, [room for layer in layers for room in layer])
    arrows = reduce_imports(imports)
    places = place_rooms(layers, arrows, left, width)
    starts, tips = spread_ends(arrows, places, 0), spread_ends(arrows, places, 1)
    lines = [f'<text class="label" x="{left + width / 2:.0f}" y="28">{package}</text>']
    for number, arrow in enumerate(arrows):
        shifts = starts.get(arrow, 0.0), tips.get(arrow, 0.0)
        lines.append(draw_arrow(places[arrow[0]], places[arrow[1]], places, shifts, number % 3))
    for room, point in sorted(places.items(), key=lambda item: (item[1].y, item[1].x)):
        name = f"{room}/" if (ROOT / "src" / package / room).is_dir() else f"{room}.py"
        corner = f'x="{point.x - BOX_WIDTH / 2:.0f}" y="{point.y - BOX_HEIGHT / 2:.0f}"'
        lines += [
            f"<g><title>{name} imports {', '.join(sorted(imports[room])) or 'no other room'}</title>",
            f'<rect class="room" {corner} width="{BOX_WIDTH}" height="{BOX_HEIGHT}" rx="5"/>',
            f'<text class="name" x="{point.x:.0f}" y="{point.y + 5:.0f}">{name}</text></g>',
        ]
    return lines


def draw_picture() -> str:
    """Return the picture of both packages, as SVG."""
    width = sum(WIDTHS.values())
    height = TOP + ROW_HEIGHT * max(len(read_layers(package)) for package in WIDTHS) - 20
    body, left = [], 0
    for package, column in WIDTHS.items():
        body += draw_package(package, left, column)
        left += column
    note = "An arrow is an import; arrows that a path of others replaces are left out."
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">',
            "<title>The rooms of modelfetch and modelserve; imports run downwards</title>",
            f"<style>{STYLE}</style>",
            DEFINITIONS,
            *body,
            f'<text class="note" x="{width / 2:.0f}" y="{height - 10}">{note}</text>',
            "</svg>\n",
        ]
    )


if __name__ == "__main__":
    PICTURE.write_text(draw_picture(), encoding="utf-8")
