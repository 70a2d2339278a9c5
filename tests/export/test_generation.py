"""Generation settings of a checkpoint are kept by every engine, or refused by name."""

from __future__ import annotations

import json
import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import MarianMTModel

from mobilenmt import CheckpointError, InputError, Pack
from mobilenmt.export.checkpoint import load_checkpoint
from mobilenmt.export.export import export
from mobilenmt.runtime.errors import DeadlineError, StoppedError
from mobilenmt.runtime.hypothesis import Hypothesis, SearchOptions
from mobilenmt.runtime.native import LIBRARY
from mobilenmt.runtime.native.engine import NativeEngine
from mobilenmt.runtime.onnx.engine import Engine
from mobilenmt.runtime.onnx.ort import SessionConfig
from tiny_models import make_checkpoint

SOURCES = [[40, 41, 42], [7], [60, 9, 30, 31, 32, 33, 50]]
ENGINES = [Engine] + ([NativeEngine] if LIBRARY.is_file() else [])

KEPT: dict[str, dict[str, Any]] = {
    "first": {"forced_bos_token_id": 50},
    "suppressed": {"suppress_tokens": [*range(20, 40)]},
    "not first": {"begin_suppress_tokens": [*range(1, 150)]},
    "long": {"min_length": 12},
    "new": {"min_new_tokens": 11},
    "n-grams": {"no_repeat_ngram_size": 2},
    "unigrams": {"no_repeat_ngram_size": 1, "forced_eos_token_id": None},
    "all": {
        "forced_bos_token_id": 50, "begin_suppress_tokens": [*range(99)], "no_repeat_ngram_size": 1, "min_length": 9,
        "renormalize_logits": True, "early_stopping": True, "num_beams": 3,
    },
}  # fmt: skip


def wanted_of(model: MarianMTModel, source: list[int], beams: int, **settings: Any) -> list[tuple[list[int], float]]:
    """Ids between start and end, and the score of a beam."""
    with torch.no_grad():
        out = model.generate(
            torch.tensor([[*source, 0]]), num_beams=beams, num_return_sequences=beams, do_sample=False,
            return_dict_in_generate=True, output_scores=True, **settings,
        )  # fmt: skip
    rows = [row[1:] for row in out.sequences.tolist()]
    scores = out.sequences_scores.tolist() if beams > 1 else [math.nan]
    pad = model.config.pad_token_id
    rows = [row[: row.index(0)] if 0 in row else [token for token in row if token != pad] for row in rows]
    return list(zip(rows, scores, strict=True))


@pytest.mark.parametrize("name", KEPT)
def test_settings_give_torchs_ids_and_scores(name: str, tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path / "checkpoint", seed=3, generation=KEPT[name], forced_eos_token_id=None)
    model = MarianMTModel.from_pretrained(checkpoint).eval()
    plain = make_checkpoint(tmp_path / "plain", seed=3, forced_eos_token_id=None)
    engine = Engine(export(checkpoint, tmp_path / "pack", precision="fp32", name="en-de"))
    other = Engine(export(plain, tmp_path / "other", precision="fp32", name="en-de"))
    limits, different = [16] * len(SOURCES), 0
    for beams in (1, 3):
        options = SearchOptions(beams, beams, length_penalty=0.8)
        found = engine.generate(SOURCES, limits, options)
        different += found != other.generate(SOURCES, limits, options)
        for source, hypotheses in zip(SOURCES, found, strict=True):
            wanted = wanted_of(model, source, beams, max_length=16, **({"length_penalty": 0.8} if beams > 1 else {}))
            assert [list(item.ids) for item in hypotheses] == [ids for ids, _ in wanted]
            for item, (_, score) in zip(hypotheses, wanted, strict=True):
                assert beams == 1 or item.score == pytest.approx(score, abs=1e-3)
            if beams == 1:
                assert list(engine.steps(source, max_length=16)) == list(hypotheses[0].ids)
    assert different


@pytest.mark.skipif(not LIBRARY.is_file(), reason="the C core was not compiled")
def test_the_c_core_reads_them_from_native_bin(tmp_path: Path) -> None:
    """Same words from the INT8 pack's core as from its graphs, where random weights leave no doubt; the rules hold."""
    checkpoint = make_checkpoint(tmp_path / "checkpoint", seed=3, generation=KEPT["all"], forced_eos_token_id=None)
    engine = NativeEngine(export(checkpoint, tmp_path / "pack", name="en-de"))
    for beams in (1, 3):
        for found, *_ in engine.generate(SOURCES, [16] * len(SOURCES), SearchOptions(beams)):
            assert found.ids[0] == 50
            assert found.ids[1] >= 99
            assert len({*found.ids}) == len(found.ids) >= 7
    assert [*engine.steps(SOURCES[0], max_length=16)] == [*engine.generate(SOURCES[:1], [16])[0][0].ids]


@pytest.mark.parametrize("precision", ["int8", "fp32"])
@pytest.mark.parametrize(
    "setting",
    [
        {"sequence_bias": [[[3], -2.0]]},
        {"repetition_penalty": 1.2},
        {"encoder_repetition_penalty": 1.2},
        {"do_sample": True, "temperature": 0.7},
        {"num_beam_groups": 2, "num_beams": 2, "diversity_penalty": 0.5},
        {"exponential_decay_length_penalty": [5, 1.1]},
        {"encoder_no_repeat_ngram_size": 3},
        {"guidance_scale": 1.5},
        {"suppress_tokens": [10**6]},
        {"begin_suppress_tokens": 3},
        {"no_repeat_ngram_size": -1},
        {"forced_bos_token_id": 0},
    ],
    ids=lambda setting: next(iter(setting)),
)  # fmt: skip
def test_what_a_pack_cannot_do_is_named(
    setting: dict[str, Any], precision: str, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    for path in tiny_checkpoint.iterdir():
        (checkpoint / path.name).symlink_to(path)
    content = json.loads((tiny_checkpoint / "generation_config.json").read_text()) | setting
    (checkpoint / "generation_config.json").unlink()
    (checkpoint / "generation_config.json").write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=r"generation_config\.json: " + next(iter(setting))):
        export(checkpoint, tmp_path / "pack", precision=precision)
    assert not (tmp_path / "pack").exists()


def test_settings_that_change_nothing_are_no_fault(tmp_path: Path) -> None:
    neutral = {
        "do_sample": False, "repetition_penalty": 1.0, "num_beam_groups": 1, "diversity_penalty": 0.0, "min_length": 0,
        "encoder_no_repeat_ngram_size": 0, "no_repeat_ngram_size": 0, "sequence_bias": None, "temperature": 1.0,
        "top_k": 50, "suppress_tokens": [], "bad_words_ids": [[0], [7]],
    }  # fmt: skip
    loaded = load_checkpoint(make_checkpoint(tmp_path / "checkpoint", generation=neutral))
    assert loaded.generation.bad_token_ids == (7,)  # the end token cannot be a bad word there


# -- what a call asks for


@pytest.fixture(scope="module")
def fp32(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Pack:
    return export(tiny_checkpoint, tmp_path_factory.mktemp("pack") / "en-de", precision="fp32")


@pytest.mark.parametrize("beams", [1, 3])
def test_prefixes_forbidden_tokens_and_ngrams_of_a_call_are_torchs(
    beams: int, fp32: Pack, tiny_checkpoint: Path
) -> None:
    model = MarianMTModel.from_pretrained(tiny_checkpoint).eval()
    engine = Engine(fp32, SessionConfig(threads=2))
    prefixes = [[50], [], [9, 9, 12]]
    free = engine.generate(SOURCES, [14] * 3, SearchOptions(beams))
    forbidden = tuple({token for (best, *_) in free for token in best.ids[-2:]})
    options = SearchOptions(beams, beams, length_penalty=0.0, forbidden=forbidden, no_repeat_ngram=2)
    found = engine.generate(SOURCES, [14] * 3, options, prefixes)
    for source, prefix, hypotheses in zip(SOURCES, prefixes, found, strict=True):
        wanted = wanted_of(
            model, source, beams, max_length=14, no_repeat_ngram_size=2, suppress_tokens=list(forbidden),
            decoder_input_ids=torch.tensor([[model.config.pad_token_id, *prefix]]),
            **({"length_penalty": 0.0} if beams > 1 else {}),
        )  # fmt: skip
        assert [list(item.ids) for item in hypotheses] == [ids for ids, _ in wanted]


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("kind", ENGINES)
def test_token_scores_add_up_and_nothing_else_changes(kind: Any, beams: int, tiny_pack: Path) -> None:
    engine = kind(Pack.open(tiny_pack))
    limits = [20, 4, 2]
    plain = engine.generate(SOURCES, limits, SearchOptions(beams, beams))
    asked = SearchOptions(beams, beams, token_scores=True, alignment=True)
    for source, before, after in zip(SOURCES, plain, engine.generate(SOURCES, limits, asked), strict=True):
        assert [replace(item, token_scores=None, alignment=None) for item in after] == before
        for item in after:
            assert item.token_scores is not None and item.alignment is not None
            assert len(item.token_scores) == item.generated
            if item.score > -1e6:  # a beam that found fewer fills up with what may not be chosen
                assert sum(item.token_scores) / item.generated == pytest.approx(item.score, abs=0.05)
            assert len(item.alignment) == len(item.ids)
            assert all(0 <= place <= len(source) for place in item.alignment)
    assert all(item.token_scores is item.alignment is None for found in plain for item in found)


def test_onnx_tells_where_torch_looks(fp32: Pack, tiny_checkpoint: Path) -> None:
    model = MarianMTModel.from_pretrained(tiny_checkpoint, attn_implementation="eager").eval()
    stepper = Engine(fp32)._stepper()
    for source, target in zip(SOURCES, ([9, 8, 7], [], [50, 51]), strict=True):
        with torch.no_grad():
            out = model(
                input_ids=torch.tensor([[*source, 0]]),
                decoder_input_ids=torch.tensor([[model.config.pad_token_id, *target]]),
                output_attentions=True,
            )
        wanted = torch.cat(out.cross_attentions).numpy()
        np.testing.assert_allclose(stepper.attention(source, target), wanted, atol=1e-4)


@pytest.mark.parametrize("kind", ENGINES)
def test_token_scores_are_those_of_torch(kind: Any, fp32: Pack, tiny_pack: Path, tiny_checkpoint: Path) -> None:
    model = MarianMTModel.from_pretrained(tiny_checkpoint).eval()
    engine = kind(fp32 if kind is Engine else Pack.open(tiny_pack))
    for source in SOURCES:
        ((found,),) = engine.generate([source], [14], SearchOptions(token_scores=True))
        tokens = [*found.ids, 0][: found.generated]
        with torch.no_grad():
            logits = model(
                input_ids=torch.tensor([[*source, 0]]),
                decoder_input_ids=torch.tensor([[model.config.pad_token_id, *tokens[:-1]]]),
            ).logits[0]
        logits[:, model.config.pad_token_id] = -torch.inf
        wanted = logits.log_softmax(-1)[range(len(tokens)), tokens].tolist()
        if found.at_limit:
            wanted[-1] = 0.0
        assert found.token_scores == pytest.approx(wanted, abs=1e-3 if kind is Engine else 0.4)


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("beams", [1, 2])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("kind", ENGINES)
def test_a_deadline_or_a_stop_ends_a_call_at_the_next_token(
    kind: Any, threads: int, beams: int, together: bool, tiny_pack: Path
) -> None:
    pack = Pack.open(tiny_pack)
    engine = kind(pack, threads) if kind is NativeEngine else Engine(pack, SessionConfig(threads=threads))
    count = 30_000 if kind is NativeEngine else 3_000
    sources, limits = [SOURCES[2]] * count, [60] * count
    base = SearchOptions(beams, min_length=60, together=together)
    asked = 0

    def stop() -> bool:
        nonlocal asked
        asked += 1
        return asked > 3

    class Own(Exception):
        pass

    def fail() -> bool:
        raise Own

    for options, error in (
        (replace(base, seconds=0.1), DeadlineError),
        (replace(base, stop=stop), StoppedError),
        (replace(base, stop=fail), Own),
    ):
        start = time.process_time()  # on a busy machine a clock on the wall says nothing
        with pytest.raises(error):
            engine.generate(sources, limits, options)
        assert time.process_time() - start < 2
    plain = engine.generate(sources[:3], limits[:3], base)
    assert engine.generate(sources[:3], limits[:3], replace(base, seconds=600.0, stop=lambda: False)) == plain


@pytest.mark.parametrize("kind", ENGINES)
def test_what_makes_no_sense_is_refused(kind: Any, tiny_pack: Path) -> None:
    engine = kind(Pack.open(tiny_pack))
    for options in (
        {"no_repeat_ngram": -1}, {"seconds": 0}, {"seconds": math.nan}, {"beam_size": True},
        {"length_penalty": math.nan},
    ):  # fmt: skip
        with pytest.raises(InputError, match=next(iter(options))):
            SearchOptions(**options)
    with pytest.raises(InputError, match="forbidden"):
        engine.generate(SOURCES, [9] * 3, SearchOptions(forbidden=(10**6,)))
    for prefixes in ([[5]], [[], [], [0]], [[9] * 9, [], []], [[10**6], [], []]):
        with pytest.raises(InputError, match="prefix"):
            engine.generate(SOURCES, [9] * 3, SearchOptions(), prefixes)


def test_a_pack_of_old_says_what_it_lacks() -> None:
    from places import TESTS

    engine = Engine(Pack.open(TESTS / "golden" / "tiny-2.0"))
    assert engine.generate([[9]], [8], SearchOptions(token_scores=True))[0][0].token_scores
    with pytest.raises(InputError, match="mobilenmt upgrade"):
        engine.generate([[9]], [8], SearchOptions(alignment=True))


def test_a_hypothesis_is_the_same_without_what_was_not_asked() -> None:
    assert Hypothesis((3,), -1.0, 2) == Hypothesis((3,), -1.0, 2, (), None, None)
