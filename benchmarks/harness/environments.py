"""An environment for each engine with what a user of it must install, and nothing else.

Size, cold start and memory are measured in these: an import must not find packages of other engines (``import
ctranslate2`` loads torch where it is installed, which takes more than a second).
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from benchmarks import ROOT
from benchmarks.engines.base import SPECS
from benchmarks.harness.errors import BenchmarkError
from benchmarks.harness.machine import source_digest

_OURS = ("runtime", "export", "compression", "models", "src", "pyproject.toml", "README.md", "LICENSE")


@dataclass(frozen=True)
class Environment:
    """A virtual environment and the packages that were installed into it."""

    folder: Path

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")

    @property
    def site(self) -> Path:
        """Its packages."""
        major, minor = sys.version_info[:2]
        windows = self.folder / "Lib" / "site-packages"
        return windows if sys.platform == "win32" else self.folder / f"lib/python{major}.{minor}/site-packages"

    @property
    def wheel_bytes(self) -> int:
        """Bytes to download."""
        return sum(path.stat().st_size for path in (self.folder / "wheels").iterdir())

    @property
    def installed_bytes(self) -> int:
        """Bytes on disk, bytecode left out (it depends on what was imported) and, for ours, the packs."""
        files = (path for path in self.site.rglob("*") if path.is_file() and not path.is_symlink())
        return sum(path.stat().st_size for path in files if path.suffix != ".pyc" and not _is_pack(path, self.site))


def _is_pack(path: Path, site: Path) -> bool:
    return path.relative_to(site).parts[:2] == ("mobilenmt", "models")


def environment_for(name: str, build: Path) -> Environment:
    """The environment of one engine, made if it is not there yet. BenchmarkError if pip cannot make it."""
    spec = SPECS[name]
    pins = [f"{package}=={version(package)}" for package in spec.requirements if package != "numpy"]
    key = hashlib.sha256(" ".join([*pins, source_digest() if spec.ours else ""]).encode()).hexdigest()[:12]
    kind = spec.factory.split(":")[0]
    target = build / f"environment-{kind}-{key}"
    if target.exists():
        return Environment(target)
    partial = build / f".environment-{kind}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    build.mkdir(parents=True, exist_ok=True)
    try:
        _call([sys.executable, "-m", "venv", "--without-pip", str(partial)])
        wheels = partial / "wheels"
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
        _call([*pip, "download", "-q", "--only-binary=:all:", "-d", str(wheels), *pins])
        if spec.ours:
            _build_wheel(pip, wheels)
        # The versions are pip's choice, as for a user: only what is named is held at what this run compares.
        found = sorted(str(path) for path in wheels.iterdir())
        site = Environment(partial).site
        _call([*pip, "install", "-q", "--no-deps", "--no-index", "--no-compile", "--target", str(site), *found])
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return Environment(target)


def _build_wheel(pip: list[str], wheels: Path) -> None:
    """Our own wheel, built from a copy: setuptools leaves files beside what it builds."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "mobilenmt"
        copy.mkdir()
        for name in _OURS:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(
                    source, copy / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info")
                )
            elif source.exists():
                shutil.copy2(source, copy / name)
        _call([*pip, "wheel", "-q", "--no-deps", "-w", str(wheels), str(copy)])


def _call(command: list[str]) -> None:
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    if found.returncode:
        said = "\n".join((found.stderr or found.stdout).strip().split("\n")[-5:])
        raise BenchmarkError(f"{' '.join(command[:6])} ... failed with status {found.returncode}: {said}")
