"""The checkpoint in a pack is the model that the pack runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarks.harness.errors import BenchmarkError
from benchmarks.harness.restore import restored

from mobilenmt.export.export import export
from mobilenmt.export.shortlist import Shortlist
from tiny_models import WORDS, make_checkpoint


@pytest.mark.parametrize("changes", [{}, {"output_bias": False, "scale_embedding": False, "decoder_layers": 1}])
def test_a_pack_gives_back_a_checkpoint_that_exports_to_the_same_pack(changes: dict[str, Any], tmp_path: Path) -> None:
    from transformers import AutoTokenizer, MarianMTModel

    made = make_checkpoint(tmp_path / "made", **changes)
    size = json.loads((made / "config.json").read_text())["vocab_size"]
    random = np.random.default_rng(0)
    shortlist = Shortlist(np.arange(0, 40), random.integers(2, size - 1, (size, 6)))
    pack = export(made, tmp_path / "en-de", shortlist=shortlist).path
    found = restored(pack, tmp_path / "build")
    (tmp_path / "again").mkdir()
    again = export(found, tmp_path / "again" / "en-de").path
    names = {file.name for file in pack.iterdir()}
    assert names == {file.name for file in again.iterdir()} > {"pack.json", "weights.bin", "greedy.onnx"}
    for name in sorted(names - {"pack.json"}):
        assert (again / name).read_bytes() == (pack / name).read_bytes(), name
    weights, wanted = (MarianMTModel.from_pretrained(folder).state_dict() for folder in (found, made))
    assert weights.keys() == wanted.keys()
    for name, value in wanted.items():
        error = np.abs(weights[name].numpy() - value.numpy()).max()
        assert error <= np.abs(value.numpy()).max() / 63 / 2 * 1.001, name
    line = " ".join(WORDS[:9])
    theirs, ours = (AutoTokenizer.from_pretrained(folder) for folder in (made, found))
    assert ours(line, add_special_tokens=False).input_ids == theirs(line, add_special_tokens=False).input_ids
    assert (ours.eos_token_id, ours.pad_token_id, ours.unk_token) == (0, size - 1, theirs.unk_token)
    assert restored(pack, tmp_path / "build") == found


def test_a_pack_of_another_kind_is_not_taken_apart(tiny_pack: Path, tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match="name the checkpoint it was made from"):
        restored(tiny_pack, tmp_path)
    assert list(tmp_path.iterdir()) == []
