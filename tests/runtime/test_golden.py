"""A pack of every format version, committed as it was written: later versions must open it and say the same.

The newest was made by ``python tests/test_golden.py`` (with src on the path); none is ever made again.
A new format gets a pack of its own beside them.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mobilenmt import Pack, Translator
from mobilenmt.runtime.hypothesis import SearchOptions
from mobilenmt.runtime.manifest import FORMAT_VERSION
from places import TESTS

GOLDEN = TESTS / "golden"
TEXTS = ["Where is the train station?", "the dog sees two cats", "</s> 🤖"]
FOLDERS = sorted(path.name for path in GOLDEN.iterdir() if path.is_dir())


def test_every_format_has_a_golden_pack() -> None:
    assert {"tiny-{}.{}".format(*version) for version in ((1, 0), FORMAT_VERSION)} <= set(FOLDERS)


@pytest.mark.parametrize("folder", FOLDERS)
def test_golden_packs_translate_as_they_did(folder: str) -> None:
    expected = json.loads((GOLDEN / f"{folder}.json").read_text(encoding="utf-8"))
    pack = Pack.open(GOLDEN / folder)
    assert "{}.{}".format(*pack.manifest.format_version) == folder.rpartition("-")[2]
    translator = Translator(pack.path)
    assert set(expected) == {"1", "3"}
    for beams, wanted in expected.items():
        assert said(translator, int(beams)) == wanted


def said(translator: Translator, beams: int) -> list[list[str]]:
    """Pieces of what the model makes of the texts as they are: what is done to texts before may get better."""
    sources = [translator._tokenizer.encode(text) for text in TEXTS]
    found = translator._engine.generate(sources, [12] * len(sources), SearchOptions(beams))
    return [translator._tokenizer.pieces(outputs[0].ids) for outputs in found]


def _make() -> None:
    import tempfile

    import numpy as np

    from mobilenmt.export.export import export
    from mobilenmt.export.shortlist import Shortlist
    from tiny_models import make_checkpoint

    name = "tiny-{}.{}".format(*FORMAT_VERSION)
    with tempfile.TemporaryDirectory() as folder:
        small = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16}
        checkpoint = make_checkpoint(Path(folder) / "checkpoint", seed=1, **small)
        size = json.loads((checkpoint / "config.json").read_text())["vocab_size"]
        lexical = np.random.default_rng(0).integers(2, size - 1, (size, 5))
        shortlist = Shortlist(np.arange(0, 40), lexical)
        pack = export(checkpoint, GOLDEN / name, name="tiny", shortlist=shortlist)
    translator = Translator(pack.path)
    found = {str(beams): said(translator, beams) for beams in (1, 3)}
    (GOLDEN / f"{name}.json").write_text(json.dumps(found, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    _make()
