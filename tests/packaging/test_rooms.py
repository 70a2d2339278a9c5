"""The layout: dependencies point one way, between packages, between rooms and between modules; rooms stay small."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from mobilenmt.compression.chain.table import STAGES, find_stage
from mobilenmt.compression.core.context import EVERY_STAGE_NEEDS
from places import ROOT

PACKAGES = ("runtime", "export", "compression")
ROOMS = (
    "core",
    "corpus",
    "vocabulary",
    "dataset",
    ("teacher", "train"),
    ("pack", "evaluate"),
    "plan",
    "prune",
    "quantize",
    "report",
    "chain",
)
"""From the one that knows nothing of others to the one that knows all. Those in one place: the former first."""
MOST_FILES = 20
MOST_BYTES = 15_000
GENERATED = ("benchmarks/results", "tests/golden", ".git", ".venv", "models")


def modules() -> dict[str, Path]:
    """Dotted name below ``mobilenmt`` -> file, of the three packages."""
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts): path
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
    }


def imports(path: Path, known: dict[str, Path]) -> Iterator[str]:
    """Modules that a file imports anywhere: at its top, in functions, and for types alone."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            below = name.removeprefix("mobilenmt.")
            if name.startswith("mobilenmt.") and below in known:
                yield below


def libraries(room: str) -> set[str]:
    """Top names of what the files of a room import."""
    names: set[str] = set()
    for path in (ROOT / "compression" / room).glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names.add(node.module.partition(".")[0])
    return names


def graph() -> dict[str, set[str]]:
    known = modules()
    return {name: set(imports(path, known)) - {name} for name, path in known.items()}


def test_the_graph_sees_imports_at_the_top_in_functions_and_for_types(tmp_path: Path) -> None:
    file = tmp_path / "file.py"
    file.write_text(
        "from mobilenmt.runtime.pack import Pack\nif TYPE_CHECKING:\n    from mobilenmt.runtime import guard\n"
        "def f():\n    import mobilenmt.runtime.text.segment\n"
    )
    assert set(imports(file, modules())) == {"runtime.pack", "runtime.guard", "runtime.text.segment"}


def test_no_module_imports_itself_in_a_circle() -> None:
    try:
        list(TopologicalSorter(graph()).static_order())
    except CycleError as error:
        pytest.fail(" <- ".join(error.args[1]))


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_depend_on_those_before_them_alone(package: str) -> None:
    before = PACKAGES[: PACKAGES.index(package) + 1]
    wrong = {
        f"{name} -> {other}"
        for name, others in graph().items()
        if name.split(".")[0] == package
        for other in others
        if other.split(".")[0] not in before
    }
    assert not wrong


def test_rooms_depend_on_those_before_them_alone() -> None:
    order = [room for place in ROOMS for room in ((place,) if isinstance(place, str) else place)]
    wrong = {
        f"{name} -> {other}"
        for name, others in graph().items()
        if name.startswith("compression.")
        for other in others
        if other.startswith("compression.") and order.index(other.split(".")[1]) > order.index(name.split(".")[1])
    }
    assert not wrong


def test_folders_and_files_stay_small_enough_to_find_ones_way() -> None:
    folders = [
        folder
        for top in (*PACKAGES, "benchmarks", "tests", "docs", "examples", "src")
        for folder in (
            ROOT / top,
            *(path for path in (ROOT / top).rglob("*") if path.is_dir() and not path.is_symlink()),
        )
        if not any(part in str(folder.relative_to(ROOT)) for part in (*GENERATED, "__pycache__", ".egg-info", "/work"))
    ]
    crowded = {
        str(folder.relative_to(ROOT)): count
        for folder in folders
        if (count := sum(path.is_file() and path.stem != "_native" for path in folder.iterdir())) > MOST_FILES
    }
    assert not crowded
    long = {name: path.stat().st_size for name, path in modules().items() if path.stat().st_size > MOST_BYTES}
    assert not long


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_asks_for_the_libraries_that_its_room_imports(name: str) -> None:
    room = STAGES[name].split(".")[2]
    asked = {*EVERY_STAGE_NEEDS, *find_stage(name).needs}
    told_where_used = {"datasets", "ray"}  # for one kind of source, for one engine
    with_others = {"numpy", "tokenizers", "safetensors"}  # the runtime's, and one that transformers requires
    found = libraries(room) - set(sys.stdlib_module_names) - {"mobilenmt"} - told_where_used - with_others
    assert found <= asked
    # not what is installed: an editable install keeps the extras of the day it was made
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert asked <= {re.split(r"[^\w-]", line)[0] for lines in extras.values() for line in lines}
