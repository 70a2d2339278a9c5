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
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import distributions, version
from pathlib import Path

from benchmarks import ROOT
from benchmarks.engines.base import SPECS
from benchmarks.harness.errors import BenchmarkError
from benchmarks.harness.machine import source_digest
from benchmarks.harness.prepare import made_once
from mobilenmt.runtime.locate import GROUP

_OURS = ("runtime", "export", "compression", "src", "pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE")
_PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check")


@dataclass(frozen=True)
class Environment:
    """A virtual environment and the packages that were installed into it."""

    folder: Path

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / "bin" / "python"

    @property
    def site(self) -> Path:
        """Its packages."""
        return self.folder / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"

    @property
    def wheel_bytes(self) -> int:
        """Bytes to download."""
        return _bytes((self.folder / "wheels").iterdir())

    @property
    def installed_bytes(self) -> int:
        """Bytes on disk, bytecode left out (it depends on what was imported) and, for ours, the packs."""
        packs = {
            self.site / file
            for distribution in distributions(path=[str(self.site)])
            if distribution.entry_points.select(group=GROUP)
            for file in distribution.files or ()
        }
        return _bytes(path for path in self.site.rglob("*") if path not in packs)

    @property
    def our_bytes(self) -> int:
        """The part of them that is ours, the pipeline left out."""
        ours = self.site / "mobilenmt"
        pipeline = {ours / "compression", *ours.glob("pipeline_*.py")}
        return _bytes(path for path in ours.rglob("*") if not pipeline & {path, *path.parents})


def _bytes(paths: Iterable[Path]) -> int:
    files = (path for path in paths if path.is_file() and not path.is_symlink() and path.suffix != ".pyc")
    return sum(path.stat().st_size for path in files)


def environment_for(name: str, build: Path) -> Environment:
    """The environment of one engine, made if it is not there yet. BenchmarkError if pip cannot make it."""
    spec = SPECS[name]
    pins = [f"{package}=={version(package)}" for package in spec.requirements if package != "numpy"]
    key = hashlib.sha256(" ".join([*pins, source_digest() if spec.ours else ""]).encode()).hexdigest()[:12]

    def make(folder: Path) -> None:
        _call(sys.executable, "-m", "venv", "--without-pip", str(folder))
        wheels = folder / "wheels"
        wheels.mkdir()
        if pins:
            _call(*_PIP, "download", "-q", "--only-binary=:all:", "-d", str(wheels), *pins)
        if spec.ours:
            _build_wheel(wheels)
        # The versions are pip's choice, as for a user: only what is named is held at what this run compares.
        found = sorted(str(path) for path in wheels.iterdir())
        site = Environment(folder).site
        _call(*_PIP, "install", "-q", "--no-deps", "--no-index", "--no-compile", "--target", str(site), *found)

    return Environment(made_once(build / f"environment-{spec.factory.replace(':', '-').lower()}-{key}", make))


def _build_wheel(wheels: Path) -> None:
    """Our own wheel, built from a copy: setuptools leaves files beside what it builds."""
    with tempfile.TemporaryDirectory() as folder:
        for name in _OURS:
            source, copy = ROOT / name, Path(folder) / name
            if source.is_dir():
                ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
                shutil.copytree(source, copy, symlinks=True, ignore=ignore)
            else:
                shutil.copy2(source, copy)
        _call(*_PIP, "wheel", "-q", "--no-deps", "-w", str(wheels), folder)


def _call(*command: str) -> None:
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    if found.returncode:
        said = "\n".join((found.stderr or found.stdout).strip().split("\n")[-5:])
        raise BenchmarkError(f"{' '.join(command[:6])} ... failed with status {found.returncode}: {said}")
