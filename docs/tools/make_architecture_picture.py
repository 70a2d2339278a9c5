"""Draws docs/architecture.svg: the rooms of the package and which imports which, read from the source.

    python docs/tools/make_architecture_picture.py            # writes the picture
    python docs/tools/make_architecture_picture.py --check    # exits 1 if the picture is not what the source says

An arrow points from a room to one whose modules it imports, at the top of a file, inside a function, or by a name in a
string. An arrow that follows from others (train -> dataset -> core, so train -> core) is left out.
One that points upwards or sideways is red: it breaks the order of the rooms.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PICTURE = ROOT / "docs" / "architecture.svg"

# Column and row of each room; a room may import what stands in a row below. One that is missing here stands at the top.
PLACES: dict[str, tuple[float, float]] = {
    "front door": (1.5, 0),
    "chain": (1.5, 1),
    "report": (0.55, 2),
    "prune": (3, 2),
    "corpus": (0, 3),
    "plan": (3, 3),
    "evaluate": (0.9, 4),
    "pack": (3, 4),
    "train": (3, 5),
    "teacher": (0.78, 5.5),
    "dataset": (3, 6),
    "vocabulary": (2.4, 7),
    "core": (0.5, 8),
    "export": (2, 8),
    "runtime": (1.5, 9),
}
TEXTS = {
    "front door": "Python API, command line",
    "chain": "recipe to report",
    "core": "stage, settings, errors",
    "corpus": "text to clean pairs",
    "vocabulary": "pairs to tokenizer",
    "dataset": "pairs to batches",
    "teacher": "source to translations",
    "train": "batches to checkpoint",
    "pack": "checkpoint to pack",
    "evaluate": "pack to scores",
    "prune": "checkpoint to a smaller one",
    "report": "runs to a page",
    "plan": "size to a shape",
    "export": "checkpoint to graphs",
    "runtime": "pack to text",
}
PIPELINE = "mobilenmt.compression"
LATER = re.compile(r"mobilenmt(\.\w+){2,}(:\w+)?")  # a module named in a string, to be imported when it is asked for
COLUMN, ROW, BOX_WIDTH, BOX_HEIGHT = 235, 96, 190, 50
WIDTH = 4 * COLUMN
RIGHT, WRONG = "#6b7688", "#c62828"


def public_names() -> dict[str, str]:
    """What ``from mobilenmt import NAME`` gives: name -> the module that defines it."""
    for node in ast.parse((ROOT / "src/mobilenmt/__init__.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "_HOMES":
            return dict(ast.literal_eval(node.value))
    raise SystemExit("src/mobilenmt/__init__.py has no _HOMES")


def room_of(module: str, homes: dict[str, str]) -> str | None:
    """The room a module or public name belongs to; None for other packages and for ``__version__``."""
    module = homes.get(module.removeprefix("mobilenmt."), module)
    parts = module.split(".")
    if parts[-1].startswith("__"):
        return None
    if parts[0] != "mobilenmt":
        return None
    if len(parts) > 2 and parts[1] == "compression":
        return parts[2]
    if len(parts) > 1 and parts[1] in ("runtime", "export"):
        return parts[1]
    return None if parts[1:2] == ["compression"] else "front door"


def files() -> dict[Path, str]:
    """Every source file and its room."""
    found = dict.fromkeys(sorted((ROOT / "src" / "mobilenmt").glob("*.py")), "front door")
    for room in ("runtime", "export"):
        found.update(dict.fromkeys(sorted((ROOT / room).rglob("*.py")), room))
    for path in sorted((ROOT / "compression").rglob("*.py")):
        found[path] = path.relative_to(ROOT / "compression").parts[0]
    return found


def imported(path: Path, homes: dict[str, str]) -> set[str]:
    """The rooms that a file imports, at its top, inside a function, or by a name in a string."""
    rooms: set[str | None] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            rooms |= {room_of(name.name, homes) for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            parent = node.module in ("mobilenmt", PIPELINE)
            names = [f"{node.module}.{name.name}" if parent else node.module for name in node.names]
            rooms |= {room_of(name, homes) for name in names}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and LATER.fullmatch(node.value):
            rooms.add(room_of(node.value.partition(":")[0], homes))
    return {room for room in rooms if room is not None}


def arrows() -> set[tuple[str, str]]:
    """(from, to): some file of the first room imports the second."""
    homes = public_names()
    found: set[tuple[str, str]] = set()
    for path, room in files().items():
        found.update((room, other) for other in imported(path, homes) if other != room)
    return found


def drawn(counted: set[tuple[str, str]], row: dict[str, float]) -> tuple[set[tuple[str, str]], set[tuple[str, str]]]:
    """The arrows that are drawn: those downwards that follow from no others, and all those that are not downwards."""
    wrong = {(source, target) for source, target in counted if row[target] <= row[source]}
    below: dict[str, set[str]] = {}
    for source, target in set(counted) - wrong:
        below.setdefault(source, set()).add(target)

    def reached(room: str) -> set[str]:
        return {room}.union(*(reached(other) for other in below.get(room, ())))

    right = {
        (source, target)
        for source, targets in below.items()
        for target in targets
        if not any(target in reached(other) for other in targets - {target})
    }
    return right, wrong


def drawing() -> str:
    """The picture as SVG."""
    counted = arrows()
    rooms = set(files().values())
    places: dict[str, tuple[float, float]] = {room: at for room, at in PLACES.items() if room in rooms}
    places.update({room: (3 - 0.9 * number, 0) for number, room in enumerate(sorted(rooms - set(PLACES)))})
    middle = {room: ((column + 0.5) * COLUMN, 40 + row * ROW) for room, (column, row) in places.items()}
    right, wrong = drawn(counted, {room: row for room, (_, row) in places.items()})
    height = max(y for _, y in middle.values()) + 40
    start = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" font-family="sans-serif" '
    lines = [
        start + 'font-size="13">',
        "<!-- Made by docs/tools/make_architecture_picture.py from the imports of the source. -->",
        f'<rect width="{WIDTH}" height="{height:.0f}" fill="white"/>',
    ]
    for name, colour in (("right", RIGHT), ("wrong", WRONG)):
        lines.append(
            f'<marker id="{name}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
            f'<path d="M0 0 8 4 0 8z" fill="{colour}"/></marker>'
        )
    for source, target in sorted(right | wrong):
        name, colour = ("wrong", WRONG) if (source, target) in wrong else ("right", RIGHT)
        (x1, y1), (x2, y2) = middle[source], middle[target]
        side = (y2 > y1) - (y2 < y1)
        y1, y2 = y1 + side * BOX_HEIGHT / 2, y2 - side * BOX_HEIGHT / 2
        lines.append(
            f'<path d="M{x1:.0f} {y1:.0f}L{x2:.0f} {y2:.0f}" stroke="{colour}" stroke-width="1.3" '
            f'marker-end="url(#{name})"/>'
        )
    for room, (x, y) in middle.items():
        fill = {"front door": "#fff3d6", "export": "#e3f1e5", "runtime": "#d3ecd8"}.get(room, "#e4ecfa")
        title = room if room in ("front door", "export", "runtime") else f"compression/{room}"
        corner = f'x="{x - BOX_WIDTH / 2:.0f}" y="{y - BOX_HEIGHT / 2:.0f}"'
        lines += [
            f'<rect {corner} width="{BOX_WIDTH}" height="{BOX_HEIGHT}" rx="7" fill="{fill}" stroke="#44506a"/>',
            f'<text x="{x:.0f}" y="{y - 3:.0f}" text-anchor="middle" font-weight="bold">{escape(title)}</text>',
            f'<text x="{x:.0f}" y="{y + 15:.0f}" text-anchor="middle" fill="#444">{escape(TEXTS.get(room, ""))}</text>',
        ]
    return "\n".join([*lines, "</svg>", ""])


def main() -> int:
    """Write or check the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true", help="only say whether the picture is up to date")
    if parser.parse_args().check:
        if PICTURE.is_file() and PICTURE.read_text(encoding="utf-8") == drawing():
            return 0
        print(f"{PICTURE.name} is not what the source says: python docs/{Path(__file__).name}", file=sys.stderr)
        return 1
    PICTURE.write_text(drawing(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
