"""Benchmarks give other engines the checkpoint in a pack, made once; what is in it, tests/export/ecosystem says."""

from __future__ import annotations

from pathlib import Path

from benchmarks.harness.restore import restored

from mobilenmt.export.checkpoint import load_checkpoint


def test_the_checkpoint_of_a_pack_is_made_once(tiny_pack: Path, tmp_path: Path) -> None:
    found = restored(tiny_pack, tmp_path / "build")
    assert load_checkpoint(found).config.d_model == 32
    times = {path: path.stat().st_mtime_ns for path in found.iterdir()}
    assert restored(tiny_pack, tmp_path / "build") == found
    assert {path: path.stat().st_mtime_ns for path in found.iterdir()} == times
