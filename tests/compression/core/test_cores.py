"""How many cores work takes by itself."""

from __future__ import annotations

import psutil
import pytest

from mobilenmt.compression.core import cores
from mobilenmt.compression.core.cores import free_cores, usable_cores


@pytest.mark.parametrize(
    ("busy", "free"),
    [([0.0, 0.0, 0.0, 0.0], 4), ([100.0, 3.0, 0.0, 1.0], 3), ([100.0, 100.0, 100.0, 97.0], 1), ([60.0] * 4, 2)],
)
def test_cores_that_others_use_are_left_to_them(busy: list[float], free: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "usable_cores", lambda: 4)
    monkeypatch.setattr(psutil, "cpu_percent", lambda interval, percpu: busy)
    assert free_cores() == free


def test_no_more_are_free_than_may_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "cpu_percent", lambda interval, percpu: [0.0] * 1000)
    assert free_cores() == usable_cores() < 1000
