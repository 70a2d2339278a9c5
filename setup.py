"""Compiles the C core. All else about the distribution stands in pyproject.toml.

The core is a plain shared library that Python opens by ctypes, so one wheel serves every Python of a platform. Where
there is no compiler, or one that does not know vector types (MSVC), the installation goes on without it: packs then run
on ONNX Runtime, and ``mobilenmt info`` says so.

For another system (script/wheels): ``MOBILENMT_CC``, a compiler's whole command for it, and ``MOBILENMT_PLATFORM``, the
wheel's tag. Then there is no going on without the library.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

NAME = "mobilenmt.runtime.native._native"
COMPILER, PLATFORM = os.environ.get("MOBILENMT_CC"), os.environ.get("MOBILENMT_PLATFORM", sys.platform)
SUFFIX = ".dll" if PLATFORM.startswith("win") else ".dylib" if PLATFORM.startswith(("darwin", "macos")) else ".so"
SOURCES = sorted(path.as_posix() for path in Path("runtime/native").rglob("*.c"))
HEADERS = sorted(path.as_posix() for path in Path("runtime/native").rglob("*.h"))
# -ffp-contract=off: fused operations round once instead of twice, and not every processor has them.
FLAGS = Path("runtime/native/flags.txt").read_text(encoding="utf-8").split()


class BuildLibrary(build_ext):
    """An extension module without Python in it."""

    def get_ext_filename(self, fullname: str) -> str:
        """The library's name, the same for every Python."""
        *folders, name = fullname.split(".")  # setuptools asks with the package in front, and without
        return str(Path(*folders, name + SUFFIX))

    def get_export_symbols(self, ext: Extension) -> list[str]:
        """No init function: the header says what is exported."""
        return list(ext.export_symbols)

    def build_extension(self, ext: Extension) -> None:
        """By setuptools' compiler, or by the one named."""
        if COMPILER is None:
            super().build_extension(ext)
            return
        out = Path(self.get_ext_fullpath(ext.name))
        out.parent.mkdir(parents=True, exist_ok=True)
        command = [*shlex.split(COMPILER), *FLAGS, "-Iruntime/native", "-shared", "-s", "-o", str(out), *SOURCES]
        subprocess.run(command, check=True)
        for path in out.parent.glob("*.lib"):  # what Windows links against, which nobody does
            path.unlink()


class Wheel(bdist_wheel):
    """For a platform, and any Python 3."""

    def get_tag(self) -> tuple[str, str, str]:
        """``py3-none-<platform>``."""
        return "py3", "none", super().get_tag()[2] if COMPILER is None else PLATFORM


CORE = Extension(
    NAME,
    SOURCES,
    include_dirs=["runtime/native"],
    depends=HEADERS,
    extra_compile_args=FLAGS,
    extra_link_args=[] if sys.platform in {"win32", "darwin"} else ["-s"],
    optional=True,
)

setup(ext_modules=[CORE], cmdclass={"build_ext": BuildLibrary, "bdist_wheel": Wheel})
