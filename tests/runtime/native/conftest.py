"""The C core, compiled once for all its tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from native import compiler
from native_core import Core, build


@pytest.fixture(scope="session")
def core_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library's file."""
    if compiler() is None:
        pytest.skip("there is no C compiler here")
    return build(tmp_path_factory.mktemp("core") / "mobilenmt.so")


@pytest.fixture(scope="session")
def core(core_library: Path) -> Core:
    """The library."""
    return Core(core_library)
