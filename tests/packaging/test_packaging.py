"""What an installation promises: a light import, a small wheel with nothing stray, imports that point one way."""

from __future__ import annotations

import ast
import email
import importlib
import importlib.util
import json
import runpy
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import types
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import mobilenmt
from mobilenmt.pyinstaller import hook_folders
from mobilenmt.runtime.native import LIBRARY
from native import compiler
from places import ROOT
from small_packs import CONTENT, make_folder

PARTS = ("runtime", "export", "compression")
BARS = tomllib.loads((ROOT / "benchmarks/report/budgets.toml").read_text(encoding="utf-8"))
MAX_BYTES: dict[str, int] = BARS["installed-bytes"]
MAX_IMPORT_SECONDS = 0.15
HEAVY = {"numpy", "onnxruntime", "tokenizers", "torch", "transformers", "onnx"}


def run_python(code: str, *, cwd: Path) -> str:
    """Standard output of a fresh interpreter that sees this checkout as an installed package would be seen."""
    prologue = f"import sys; sys.path.insert(0, {str(ROOT / 'src')!r})\n"
    done = subprocess.run([sys.executable, "-c", prologue + code], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


# --- import -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", ["mobilenmt", "mobilenmt.runtime", "mobilenmt.runtime.errors", "mobilenmt.export"])
def test_import_loads_nothing_heavy(module: str, tmp_path: Path) -> None:
    code = f"import {module}\nprint(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    assert HEAVY.isdisjoint(run_python(code, cwd=tmp_path).split())


def test_import_is_fast(tmp_path: Path) -> None:
    code = "import time\nstart = time.perf_counter()\nimport mobilenmt\nprint(time.perf_counter() - start)"
    best = min(float(run_python(code, cwd=tmp_path)) for _ in range(5))
    assert best <= MAX_IMPORT_SECONDS


def test_public_names_are_listed_once_and_all_load() -> None:
    tree = ast.parse((ROOT / "src/mobilenmt/__init__.py").read_text(encoding="utf-8"))
    for_type_checkers = {
        alias.name: node.module
        for block in tree.body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert for_type_checkers == mobilenmt._HOMES
    assert set(mobilenmt.__all__) == {*mobilenmt._HOMES, "__version__"}
    for name in mobilenmt.__all__:
        assert getattr(mobilenmt, name) is not None
    assert set(mobilenmt.__all__) <= set(dir(mobilenmt))


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"module 'mobilenmt' has no attribute 'Interpreter'"):
        _ = mobilenmt.Interpreter


# --- direction of imports ---------------------------------------------------------------------------------------------


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """(line, absolute dotted name) of every import in a file, wherever in the file it stands."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{path}:{node.lineno}: relative import"
            for alias in node.names:  # `from mobilenmt import export` names a module too
                yield node.lineno, f"{node.module}.{alias.name}"


def offences(part: str, banned: tuple[str, ...]) -> list[str]:
    """Imports in one of the top-level folders of a banned module or of something inside it."""
    return [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path in sorted((ROOT / part).rglob("*.py"))
        for line, name in imports(path)
        if name.startswith(tuple(f"{module}." for module in banned)) or name in banned
    ]


def test_runtime_imports_its_three_dependencies_and_nothing_else() -> None:
    allowed = {*sys.stdlib_module_names, "mobilenmt", "numpy", "onnxruntime", "tokenizers"}
    roots = {
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path in (ROOT / "runtime").rglob("*.py")
        for line, name in imports(path)
        if name.partition(".")[0] not in allowed
    }
    assert roots == set()
    assert offences("runtime", ("mobilenmt.export", "mobilenmt.compression", "mobilenmt.cli")) == []


def test_export_does_not_import_compression() -> None:
    assert offences("export", ("mobilenmt.compression", "mobilenmt.cli")) == []


def test_nothing_imports_a_part_by_its_top_level_name() -> None:
    """`import runtime` works from the root of a checkout, and nowhere else."""
    for part in PARTS:
        assert offences(part, PARTS) == []


# --- distribution -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what the build reads, with a tiny pack in place of the real one."""
    copy = tmp_path_factory.mktemp("tree")
    stray = shutil.ignore_patterns("__pycache__", "*.egg-info", LIBRARY.name)
    for name in ("src", *PARTS):
        shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=stray)
    for name in ("pyproject.toml", "setup.py", "MANIFEST.in", "LICENSE", "README.md"):
        shutil.copy(ROOT / name, copy / name)
    # The pack's own distribution, its files one byte long: what is looked at is which go where.
    pack = copy / "models" / "en-de"
    pack.mkdir(parents=True)
    for path in (ROOT / "models" / "en-de").iterdir():
        if path.suffix in (".bin", ".onnx"):
            (pack / path.name).write_bytes(b"x")
        elif path.is_file():
            shutil.copy(path, pack / path.name)
    # What a used checkout also holds, and a wheel must not.
    (pack / "notes.txt").write_text("notes", encoding="utf-8")
    (copy / "models" / "README.md").write_text("notes", encoding="utf-8")
    (copy / "runtime" / "__pycache__").mkdir()
    (copy / "runtime" / "__pycache__" / "pack.cpython-311.pyc").write_bytes(b"stale")
    (copy / "runtime" / "notes.txt").write_text("notes", encoding="utf-8")
    return copy


def build(kind: str, source: Path, out: Path) -> Path:
    """Call the build backend as pip does (`kind` is wheel or sdist), without a network; the path of what it made."""
    if importlib.util.find_spec("setuptools") is None:
        pytest.skip("needs setuptools (the dev extra)")
    code = f"from setuptools import build_meta\nprint('\\n' + build_meta.build_{kind}({str(out)!r}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return out / done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def sdist(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution, unpacked."""
    out = tmp_path_factory.mktemp("sdist")
    archive = build("sdist", tree, out)
    with tarfile.open(archive) as tar:
        tar.extractall(out, filter="data")
    return out / archive.name.removesuffix(".tar.gz")


@pytest.fixture(scope="module")
def wheel(tree: Path, sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel. Built after the sdist, so that what that leaves in the tree (an egg-info) would show."""
    assert sdist.is_dir()
    return build("wheel", tree, tmp_path_factory.mktemp("wheel"))


def contents(wheel: Path) -> dict[str, int]:
    """File name -> unpacked bytes."""
    with zipfile.ZipFile(wheel) as archive:
        return {info.filename: info.file_size for info in archive.infolist()}


def expected_files() -> set[str]:
    code = {f"mobilenmt/{path.name}" for path in (ROOT / "src/mobilenmt").glob("*.py")}
    code |= {f"mobilenmt/{path.relative_to(ROOT).as_posix()}" for part in PARTS for path in (ROOT / part).rglob("*.py")}
    code |= {f"mobilenmt/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / "runtime/text/rules").rglob("*.json")}
    report = ROOT / "compression/report"
    code |= {f"mobilenmt/compression/report/{path.name}" for end in ("html", "css") for path in report.glob(f"*.{end}")}
    code |= {f"mobilenmt/pyinstaller/{name}" for name in ("__init__.py", "hook-mobilenmt.py")}
    info = f"mobilenmt-{mobilenmt.__version__}.dist-info"
    about = {"METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE", "top_level.txt"}
    library = {f"mobilenmt/runtime/native/{LIBRARY.name}"} if compiler() else set()
    rules = {f"mobilenmt/runtime/text/rules/{path.name}" for path in (ROOT / "runtime/text/rules").glob("*.json")}
    rules |= {
        f"mobilenmt/compression/plan/data/{path.name}" for path in (ROOT / "compression/plan/data").glob("*.json")
    }
    return code | library | rules | {"mobilenmt/py.typed"} | {f"{info}/{name}" for name in about}


def test_wheel_has_every_module_and_nothing_stray_nor_any_weights(wheel: Path) -> None:
    platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
    assert wheel.name == f"mobilenmt-{mobilenmt.__version__}-py3-none-{platform}.whl"
    assert set(contents(wheel)) == expected_files()


def test_wheel_is_small(wheel: Path) -> None:
    found = dict.fromkeys(MAX_BYTES, 0)
    for name, size in contents(wheel).items():
        found[part_of(name)] += size
    assert {part: size for part, size in found.items() if size > MAX_BYTES[part]} == {}
    assert found["engine"] + found["exporter"] > 100_000, "the parts are not found"


def part_of(name: str) -> str:
    """Which part of :data:`MAX_BYTES` a file of the wheel belongs to."""
    if not name.startswith("mobilenmt/"):
        return "about"
    if name.startswith(("mobilenmt/compression/", "mobilenmt/pipeline_")):
        return "pipeline"
    if name.startswith("mobilenmt/export/"):
        return "exporter"
    if name.startswith("mobilenmt/runtime/text/rules/"):
        return "rules"
    if name.startswith("mobilenmt/runtime/text/"):
        return "text"
    if name.endswith(LIBRARY.suffix):
        return "library"
    return "engine" if name.startswith("mobilenmt/runtime/") else "command line"


def test_wheel_from_the_sdist_is_the_same(wheel: Path, sdist: Path, tmp_path: Path) -> None:
    again = contents(build("wheel", sdist, tmp_path))
    assert again.keys() == contents(wheel).keys()
    assert {name: size for name, size in again.items() if name.endswith(".py")} == {
        name: size for name, size in contents(wheel).items() if name.endswith(".py")
    }


def test_wheel_requires_the_runtime_only(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        info = f"mobilenmt-{mobilenmt.__version__}.dist-info"
        metadata = email.message_from_bytes(archive.read(f"{info}/METADATA"))
        scripts = archive.read(f"{info}/entry_points.txt").decode()
    base = [line for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line]
    assert sorted(line.split(">")[0].split("<")[0] for line in base) == ["numpy", "onnxruntime", "tokenizers"]
    assert set(metadata.get_all("Provides-Extra", [])) == {"export", "compress", "ray", "npu", "dev"}
    assert metadata["License-Expression"] == "Apache-2.0"
    assert "mobilenmt = mobilenmt.cli:entry" in scripts
    assert "[pyinstaller40]\nhook-dirs = mobilenmt.pyinstaller:hook_folders" in scripts


def test_pack_is_a_distribution_with_a_licence_of_its_own(tree: Path, tmp_path: Path) -> None:
    """Built with what its pack.json lists, no more and no less, and an entry point that mobilenmt finds it by."""
    built = build("wheel", tree / "models" / "en-de", tmp_path)
    name, _, version = built.name.removesuffix("-py3-none-any.whl").partition("-")
    assert name == "mobilenmt_pack_en_de"
    info = f"{name}-{version}.dist-info"
    card = json.loads((ROOT / "models/en-de/pack.json").read_text(encoding="utf-8"))
    files = {f"{name}/{file}" for file in ("__init__.py", "pack.json", *card["files"])}
    about = {"METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE", "top_level.txt"}
    assert set(contents(built)) == files | {f"{info}/{file}" for file in about}
    with zipfile.ZipFile(built) as archive:
        metadata = email.message_from_bytes(archive.read(f"{info}/METADATA"))
        entry_points = archive.read(f"{info}/entry_points.txt").decode()
        licence = " ".join(archive.read(f"{info}/licenses/LICENSE").decode().split())
    assert metadata["Name"] == "mobilenmt-pack-en-de"
    assert metadata["License-Expression"] == "LicenseRef-research-and-evaluation-only"
    assert entry_points.split("\n")[:2] == ["[mobilenmt.packs]", "en-de = mobilenmt_pack_en_de"]
    assert "not for commercial use" in card["card"]["licence"] and "NOT FOR COMMERCIAL USE" in licence
    for source in card["card"]["training_data"]:  # as the card says
        assert source["licence"] in licence


def test_pack_installed_beside_the_engine_is_found(tree: Path, wheel: Path, tmp_path: Path) -> None:
    """Both wheels unpacked into one folder, as pip does, and no checkout on the path."""
    for archive in (wheel, build("wheel", tree / "models" / "en-de", tmp_path)):
        with zipfile.ZipFile(archive) as opened:
            opened.extractall(tmp_path / "site")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r})\n"
        "from mobilenmt.runtime.locate import find_pack\nprint(find_pack('en-de'), 'importlib.metadata' in sys.modules)"
    )
    # without site-packages: an editable install of this checkout must not answer
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == f"{tmp_path / 'site' / 'mobilenmt_pack_en_de'} False\n", done.stderr


def test_engine_alone_says_how_to_get_a_pack(wheel: Path, tmp_path: Path) -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(wheel)!r})\n"
        "from mobilenmt.runtime.locate import find_pack\nfind_pack('en-de')"
    )
    environment = {"XDG_DATA_HOME": str(tmp_path), "SYSTEMROOT": "C:\\Windows"}
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], cwd=tmp_path, capture_output=True, text=True, env=environment
    )
    error = done.stderr.splitlines()[-1]
    assert "PackNotFoundError" in error
    assert "pip install ./models/en-de" in error and "MOBILENMT_PACKS" in error


def collect_data_files(package: str) -> list[tuple[str, str]]:
    """As PyInstaller's: every file of a package's folder, and of those in it, that is no code; and where it goes."""
    (place,) = importlib.import_module(package).__path__
    return [
        (str(path), str(Path(*package.split("."), path.parent.relative_to(place))))
        for path in Path(place).rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc")
    ]


def test_hook_gives_pyinstaller_the_packs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run as PyInstaller runs it, with stand-ins for what it imports from there, if it is not installed."""
    folder = make_folder(tmp_path / "pack_of_the_hook")
    (folder / "notes.txt").write_text("notes")
    inner = make_folder(tmp_path / "pack_inside" / "pack")
    for name, package in (("hook_pack", folder.name), ("inside_pack", "pack_inside")):
        about = tmp_path / f"{name}-1.0.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(f"Metadata-Version: 2.4\nName: {name}\nVersion: 1.0\n")
        (about / "entry_points.txt").write_text(f"[mobilenmt.packs]\n{name} = {package}\n")
    monkeypatch.syspath_prepend(tmp_path)
    if importlib.util.find_spec("PyInstaller") is None:
        hooks = types.ModuleType("PyInstaller.utils.hooks")
        hooks.collect_submodules = lambda package: [f"{package}.translator"]  # type: ignore[attr-defined]
        hooks.collect_data_files = collect_data_files  # type: ignore[attr-defined]
        hooks.copy_metadata = lambda name: [(str(tmp_path / f"{name}-1.0.dist-info"), f"{name}-1.0.dist-info")]  # type: ignore[attr-defined]
        for module in ("PyInstaller", "PyInstaller.utils"):
            monkeypatch.setitem(sys.modules, module, types.ModuleType(module))
        monkeypatch.setitem(sys.modules, hooks.__name__, hooks)
    (place,) = hook_folders()
    found = runpy.run_path(str(Path(place) / "hook-mobilenmt.py"))
    core = [(str(LIBRARY), "mobilenmt/runtime/native")] if LIBRARY.is_file() else []
    assert found["binaries"] == core
    datas = set(found["datas"])
    assert {(str(folder / name), folder.name) for name in ("pack.json", *CONTENT)} < datas
    assert {(str(inner / name), str(Path("pack_inside", "pack"))) for name in ("pack.json", *CONTENT)} < datas
    for name in ("hook_pack-1.0.dist-info", "inside_pack-1.0.dist-info"):
        assert (str(tmp_path / name), name) in datas
    assert not any("notes.txt" in source for source, _ in datas)
    rules = Path(mobilenmt.__file__).parent / "runtime" / "text" / "rules"
    wanted = {
        (path, Path("mobilenmt/runtime/text/rules") / path.parent.relative_to(rules)) for path in rules.rglob("*.json")
    }
    assert {(path.name, path.parent.name) for path, _ in wanted} >= {("fold.json", "rules"), ("en.json", "sentences")}
    assert {(str(path), str(folder)) for path, folder in wanted} < datas
    assert {"mobilenmt.runtime.translator", folder.name, "pack_inside"} <= set(found["hiddenimports"])


def test_pinned_versions_lie_in_the_supported_ranges() -> None:
    """script/constraints.txt against pyproject.toml, so that script/test cannot become impossible to install."""
    packaging = pytest.importorskip("packaging.requirements")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    pins: dict[str, list[str]] = {}
    for line in (ROOT / "script/constraints.txt").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            pin = packaging.Requirement(line)
            pins.setdefault(pin.name, []).append(str(pin.specifier).removeprefix("=="))
    wanted = [
        *project["dependencies"],
        *(r for extra in ("export", "compress", "ray", "dev") for r in project["optional-dependencies"][extra]),
    ]
    for requirement in map(packaging.Requirement, wanted):
        if requirement.name == "mobilenmt":  # one extra brings another
            continue
        assert pins.get(requirement.name), f"{requirement.name} has no exact version in script/constraints.txt"
        assert all(requirement.specifier.contains(version) for version in pins[requirement.name]), requirement.name
