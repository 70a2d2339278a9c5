"""Text handling with a pack as OPUS-MT's are: Unigram of SentencePiece, no bytes, separate vocabularies; none of our
placeholders in training."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

pytest.importorskip("sentencepiece")

from mobilenmt import Rules, Translator
from mobilenmt.export.export import export
from mobilenmt.runtime.hypothesis import Hypothesis, SearchOptions
from mobilenmt.runtime.native import LIBRARY
from mobilenmt.runtime.text.kept import find
from places import ROOT
from tiny_models import ASCII, make_opus_checkpoint

ENGINES = [
    pytest.param("native", marks=pytest.mark.skipif(not LIBRARY.is_file(), reason="the C core was not compiled")),
    "onnx",
]
CASES = (Path(__file__).parent / "text" / "data" / "kept.txt").read_text(encoding="utf-8").splitlines()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = (ROOT / "benchmarks" / "sentences.en.txt").read_text(encoding="utf-8").splitlines()
    target = (Path(__file__).parent / "text" / "data" / "sentences.de.txt").read_text(encoding="utf-8").splitlines()
    lines = [*source, *[ASCII] * 3], [*target, *[ASCII] * 3]
    return make_opus_checkpoint(
        tmp_path_factory.mktemp("opus") / "checkpoint",
        separate=True,
        tokenizer={"lines": lines, "whole": True, "vocab_size": 400, "character_coverage": 1.0},
        encoder_layers=1,
        decoder_layers=1,
        activation_function="swish",
    )


@pytest.fixture(scope="module")
def pack(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(checkpoint, tmp_path_factory.mktemp("pack") / "en-de", precision="int8").path


Generate = Callable[[Sequence[Sequence[int]], Sequence[int], SearchOptions], list[list[Hypothesis]]]


def copying(checkpoint: Path) -> Generate:
    """Instead of the model's weights: what a source's pieces spell, in pieces of the target's vocabulary."""
    import sentencepiece

    spelled = {i: piece for piece, i in json.loads((checkpoint / "vocab.json").read_text(encoding="utf-8")).items()}
    ids = json.loads((checkpoint / "target_vocab.json").read_text(encoding="utf-8"))
    target = sentencepiece.SentencePieceProcessor(model_file=str(checkpoint / "target.spm"))

    def generate(
        sources: Sequence[Sequence[int]], limits: Sequence[int], options: SearchOptions
    ) -> list[list[Hypothesis]]:
        found = []
        for source in sources:
            text = "".join(spelled[i] for i in source).replace("▁", " ").strip()
            pieces = [ids.get(piece, 1) for piece in target.encode(text, out_type=str)]
            found.append([Hypothesis(tuple(pieces), -1.0, len(pieces) + 1)])
        return [items * options.n_best for items in found]

    return generate


@pytest.fixture(params=ENGINES)
def copier(request: pytest.FixtureRequest, pack: Path, checkpoint: Path) -> Translator:
    translator = Translator(pack, engine=request.param)
    translator._engine.generate = copying(checkpoint)  # type: ignore[method-assign,assignment]
    return translator


def test_the_pack_is_of_that_kind(pack: Path, checkpoint: Path) -> None:
    manifest = json.loads((pack / "pack.json").read_text(encoding="utf-8"))
    assert not manifest.get("placeholders", {}).get("forms")
    source, target = (json.loads((checkpoint / name).read_text()) for name in ("vocab.json", "target_vocab.json"))
    assert "▁the" in source and "▁the" not in target
    tokenizer = Translator(pack)._tokenizer
    assert tokenizer.encode("the dog") and not any("<0x" in piece for piece in source)


@pytest.mark.parametrize(
    "text",
    [
        "It is 3.5 km to the station. We will be there in ten minutes.",
        "Write to max@example.com, or open {name} and `code()` now.",
        "  1. The dog <b>sees</b> 42 cats.  \r\n\t- Come at 10:30!\n\n> > See https://example.org/a?b=1 here.",
        "It is 3.5 km<b>to</b> the station",
        "The 猫 and Dvořák ⌘ are here.",
        "name\tprice\t5 km\n| a dog | a cat |",
        "He/she is (a) here (b) there.",
        '{"name": "Max"}\nfor (i = 0; i < n; i++) {',
        "00:00:01,000 --> 00:00:03,500",
    ],
)
def test_a_model_that_copies_gives_back_the_text(copier: Translator, text: str) -> None:
    found = copier.translate_batch([text])[0]
    assert found.text == text
    assert not {"parts", "placed", "retried"} & set(found.flags), found.flags


def test_unusual_spellings_are_folded_as_for_any_other_model(copier: Translator) -> None:
    """NFC, ligatures, spaces, full width: its own nmt_nfkc would do some of it, but say nothing of what it changed."""
    for text, like in [
        ("The of\ufb01ce is open.", "The office is open."),
        ("Where is the dog\uff1f", "Where is the dog?"),
        ("The ho\u00aduse is\u200b big.", "The house is big."),
        ("It is \u201cgood\u201d.", 'It is "good".'),
    ]:
        assert copier.translate(text) in (text, like)
    assert copier.translate("OPEN THE WINDOW") == "OPEN THE WINDOW"


def test_written_cases_keep_every_span(copier: Translator) -> None:
    """Of a model that copies what its vocabulary can spell nothing is lost, moved or translated in parts."""
    texts = [re.sub("[⟪⟫]", "", line) for line in CASES]
    wanted = [re.findall("⟪([^⟫]*)⟫", line) for line in CASES]
    found = copier.translate_batch(texts)
    assert [
        text for text, spans, item in zip(texts, wanted, found, strict=True) if any(s not in item.text for s in spans)
    ] == []
    assert [item.text for item in found if {"parts", "placed"} & set(item.flags)] == []


@pytest.mark.parametrize("engine", ENGINES)
def test_random_weights_lose_nothing_either(pack: Path, engine: str) -> None:
    """The model says anything; spans and layout are there all the same, and what was done for it is flagged."""
    translator = Translator(pack, engine=engine)
    texts = [re.sub("[⟪⟫]", "", line) for line in CASES[::12]]
    found = translator.translate_batch(["  - {x} the dog\n\tGood morning, 猫\n", *texts])
    first = found[0].text
    assert re.fullmatch(r"  - .*\{x\}.*\n\t.*猫.*\n", first), first
    for text, item in zip(texts, found[1:], strict=True):
        assert "\ufffd" not in item.text
        for span in find(text, Rules.default().without("decimal", "number")):
            assert text[span.start : span.end] in item.text, (text, item.text)
    assert any("parts" in item.flags for item in found)
