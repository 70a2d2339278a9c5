"""What the C core computes and finds: a numpy reference to the bit, and transformers' ``generate`` over it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mobilenmt.export.checkpoint import load_checkpoint
from mobilenmt.export.export import export
from mobilenmt.export.shortlist import Shortlist
from native import NativeError
from native_core import ARGUMENT, Core, Model, Output
from native_files import COLUMNS, FLOAT_ROWS, INT4_ROWS, INT8_ROWS, INT32, NONE, UINT8_ROWS, UINT16, Made
from native_oracle import Oracle
from native_reference import ACTIVATIONS, Reference, exp, log, power_below_one
from tiny_models import make_checkpoint

SOURCES = [[3, 4, 5, 6, 7, 0], [5, 0], [9, *[4] * 15, 3, 0], list(range(2, 10)) * 4 + [0]]
LIMIT = 18


def tokens(output: Output) -> list[int]:
    """With the end token, if it was generated."""
    return [*output.ids, *[0] * (output.generated - len(output.ids))]


def compare(model: Model, reference: Reference, sources: list[list[int]], forced: int | None) -> None:
    """Greedy search: ids, scores and alignment, bit for bit."""
    for ids, found in zip(sources, model.translate(sources, max_length=LIMIT, alignment=1), strict=True):
        wanted, scores, looked = reference.greedy(ids, LIMIT, forced=forced)
        assert tokens(found) == wanted
        assert found.token_score_bits == np.array(scores, np.float32).tobytes()
        assert found.alignment == tuple(looked[: len(found.ids)])
        assert found.score == pytest.approx(sum(scores), rel=1e-6)
    assert reference.step((reference.start,)).logits.std() > 0.1  # a model that has an opinion


@pytest.mark.parametrize(
    "made",
    [
        {},
        {"width": 48, "heads": (3, 3), "hidden": (64, 96), "layers": (2, 2)},
        {"width": 21, "heads": (3, 1), "hidden": (20, 37)},
        {"width": 10, "heads": (2, 2), "hidden": (7, 5), "layers": (1, 3)},
        {"width": 24, "heads": (2, 2), "hidden": (33, 31), "factor": math.sqrt(24)},
        {"width": 15, "heads": (1, 3), "source": 19, "target": 33, "output_bias": True},
        {"width": 20, "heads": (4, 2), "pre_norm": True},
        {"width": 17, "heads": (17, 1), "trained_positions": True},
        {"width": 10, "target": 50, "lexical": UINT16, "rows_kind": INT8_ROWS, "output_bias": True},
        {"width": 19, "heads": (1, 1), "target": 50, "lexical": INT32},
        {"bad": (1, 3, 5), "forced_eos": 0},
        {"width": 36, "forms": (INT4_ROWS,), "rows_kind": INT4_ROWS, "hidden": (70, 150), "layers": (2, 2)},
        {"width": 35, "heads": (5, 1), "forms": (FLOAT_ROWS,), "rows_kind": FLOAT_ROWS, "hidden": (37, 20)},
        {"width": 21, "heads": (3, 1), "target": 60, "lexical": UINT16, "rows_kind": INT4_ROWS, "output_bias": True},
        {"width": 19, "heads": (1, 1), "target": 50, "lexical": INT32, "rows_kind": FLOAT_ROWS, "factor": 4.0},
        {"width": 20, "forms": (FLOAT_ROWS, INT4_ROWS, COLUMNS, UINT8_ROWS), "layers": (2, 3), "pre_norm": True},
        {"width": 26, "forms": (INT8_ROWS, FLOAT_ROWS, INT4_ROWS), "rows_kind": FLOAT_ROWS, "pre_norm": True},
    ],
    ids=str,
)
def test_reference_to_the_bit(core: Core, made: dict[str, Any]) -> None:
    files = Made(**{"positions": 70, "spread": 0.02, **made}).files()
    compare(core.open_memory(*files), Reference(*files), SOURCES, 0 if "forced_eos" in made else None)


@pytest.mark.parametrize("activation", range(len(ACTIVATIONS)))
def test_activations_to_the_bit(core: Core, activation: int) -> None:
    files = Made(activation=activation, width=18, hidden=(50, 19), positions=70, spread=0.02).files()
    compare(core.open_memory(*files), Reference(*files), SOURCES, None)


def test_the_references_functions_are_what_they_are_called() -> None:
    from transformers.activations import ACT2FN

    names = (
        "relu", "gelu", "gelu_new", "gelu_10", "silu", "quick_gelu", "tanh", "sigmoid", "linear", "leaky_relu", "mish",
        "relu2", "relu6", "laplace",
    )  # fmt: skip
    x = np.linspace(-30, 30, 24_001, dtype=np.float32)
    for name, function in zip(names, ACTIVATIONS, strict=True):
        wanted = ACT2FN[name](torch.from_numpy(x).double()).numpy()
        assert np.allclose(function(x), wanted, rtol=1e-6, atol=1e-6), name
    assert np.allclose(exp(x), np.exp(x.astype(float)), rtol=3e-7, atol=0)
    below = x[(x <= 0) & (x > -80)]
    assert np.allclose(power_below_one(below), np.exp(below.astype(float)), rtol=4e-6, atol=2e-7)
    assert power_below_one(np.zeros(1, np.float32))[0] == 1
    above = np.exp(x)
    assert np.allclose(log(above), np.log(above.astype(float)), rtol=3e-7, atol=1e-7)


@pytest.mark.parametrize("shortlist", [False, True])
@pytest.mark.parametrize(
    "config",
    [
        {},
        {"d_model": 21, "encoder_attention_heads": 3, "decoder_attention_heads": 1, "activation_function": "gelu"},
        {"d_model": 24, "decoder_attention_heads": 2, "scale_embedding": False, "decoder_ffn_dim": 33},
        {"share_encoder_decoder_embeddings": False, "decoder_vocab_size": 344},
        {"tie_word_embeddings": False, "encoder_layers": 1, "decoder_layers": 3},
    ],
    ids=["defaults", "odd width", "odd heads", "two vocabularies", "own output"],
)
def test_exported_packs_to_the_bit(core: Core, tmp_path: Path, config: dict[str, Any], shortlist: bool) -> None:
    checkpoint = make_checkpoint(tmp_path / "checkpoint", **config)
    size = load_checkpoint(checkpoint).config.vocab_size
    candidates = Shortlist(np.arange(0, 30), np.random.default_rng(0).integers(2, 300, (size, 4)))
    pack = export(checkpoint, tmp_path / "en-de", shortlist=candidates if shortlist else False)
    reference = Reference(*((pack.path / name).read_bytes() for name in ("native.bin", "weights.bin")))
    sources = [[5, 17, 200, 31, 8, 0], [40, 0], [*range(50, 75), 0]]
    model = core.open(pack.path)
    compare(model, reference, sources, 0)
    assert model.info.tokenizer == 1
    compare(core.open(pack.path, core.kernels[-1]), reference, sources[:1], 0)


EARLY = {0: False, 1: True, 2: "never"}


@pytest.mark.parametrize("seed", range(24))
def test_searches_are_those_of_generate(core: Core, seed: int) -> None:
    """All settings in turn: a beam's hypotheses and scores, greedy search's ids."""
    forced, early, limit = (NONE, 0)[seed % 2], seed % 3, (6, 10, 14, 3)[seed % 4]
    penalty, ngram = (1.0, 0.0, 2.0, -0.5, 0.6)[seed % 5], (0, 2, 0, 3, 1)[seed // 2 % 5]
    renormalize, least = seed % 7 == 0, (1, 5, 2)[seed % 3]
    made = Made(
        seed=seed, forced_eos=forced, early=early, renormalize=renormalize, spread=0.03, output_bias=True, bad=(1,),
        source=12, target=16, lexical=(0, UINT16, INT32)[seed % 3],
    )  # fmt: skip
    files = made.files()
    model, reference = core.open_memory(*files), Reference(*files)
    oracle = Oracle(reference).eval()
    settings: dict[str, Any] = {
        "max_length": limit,
        "min_length": min(least, limit),
        "no_repeat_ngram_size": ngram,
        **({} if forced == NONE else {"forced_eos_token_id": forced}),
        **({"renormalize_logits": True} if renormalize else {}),
    }
    own = {"max_length": limit, "min_length": min(least, limit), "no_repeat_ngram": ngram, "length_penalty": penalty}
    for ids in ([3, 4, 5, 6, 7, 0], [5, 0]):
        (found,) = model.translate([ids], **own)
        assert list(found.ids) == oracle.search(ids, **settings)[0][0]
        for beams in (2, 4):
            beam = {"num_beams": beams, "length_penalty": penalty, "early_stopping": EARLY[early]}
            wanted = oracle.search(ids, **settings, **beam)
            several = model.translate([ids], beam_size=beams, n_best=beams, alignment=1, **own)
            assert [list(output.ids) for output in several] == [row for row, _ in wanted]
            for output, (_, score) in zip(several, wanted, strict=True):
                assert output.score == pytest.approx(score, rel=1e-5)
                assert output.score == pytest.approx(output.token_scores.sum() / output.generated**penalty, rel=1e-5)
                check_path(reference, output, forced if forced != NONE else None, limit)


@pytest.mark.parametrize("beams", [1, 2, 5])
def test_outputs_longer_than_two_pages(core: Core, beams: int) -> None:
    """Keys and values lie in pages of 16 positions, which hypotheses share and copy."""
    files = Made(seed=3, spread=0.05, output_bias=True, source=12, target=16, positions=50, layers=(1, 2)).files()
    model, reference = core.open_memory(*files), Reference(*files)
    oracle = Oracle(reference).eval()
    for ids in ([3, 4, 5, 6, 7, 0], [5, 6, 9, 0]):
        settings = {"num_beams": beams, "length_penalty": 0.0} if beams > 1 else {}
        wanted = oracle.search(ids, max_length=40, min_length=38, no_repeat_ngram_size=3, **settings)
        found = model.translate(
            [ids], max_length=40, min_length=38, no_repeat_ngram=3, beam_size=beams, n_best=beams, length_penalty=0.0,
            alignment=1,
        )  # fmt: skip
        assert [list(output.ids) for output in found] == [row for row, _ in wanted]
        assert len(found[0].ids) > 35 and len(set(found[0].ids)) > 3
        for output in found if beams > 1 else ():  # a greedy search's probabilities are those of what is allowed
            check_path(reference, output, None, 40)


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("beams", [1, 3])
def test_ngrams_begin_with_the_start_token(core: Core, beams: int, n: int) -> None:
    """As for transformers, which looks at all that the decoder was given; here the start token may come again."""
    repeats = 0
    for seed in range(6):
        files = Made(seed=seed, spread=0.03, output_bias=True, source=12, target=8, start=3).files()
        model, oracle = core.open_memory(*files), Oracle(Reference(*files)).eval()
        settings = {"num_beams": beams, "length_penalty": 0.0} if beams > 1 else {}
        for ids in ([3, 4, 5, 6, 7, 0], [5, 0]):
            wanted = oracle.search(ids, max_length=9, no_repeat_ngram_size=n, **settings)
            found = model.translate(
                [ids], max_length=9, no_repeat_ngram=n, beam_size=beams, n_best=beams, length_penalty=0.0
            )
            assert [list(output.ids) for output in found] == [row for row, _ in wanted]
            repeats += any(3 in output.ids for output in found)
    assert repeats or n == 1


def check_path(reference: Reference, output: Output, forced: int | None, limit: int) -> None:
    """Where a hypothesis looked, and what its tokens were worth, is what its own path gives."""
    path = (reference.start, *tokens(output))
    for step in range(1, len(path)):
        if forced is not None and step == limit - 1:
            continue
        if not reference.renormalize:
            wanted = reference.log_probabilities(path[:step])[path[step]]
            assert output.token_scores[step - 1] == pytest.approx(wanted, abs=2e-6 * max(1, step) + 1e-5)
        if step <= len(output.ids):
            assert output.alignment is not None
            assert output.alignment[step - 1] == reference.step(path[:step]).looked


def small(core: Core, **changes: Any) -> tuple[Model, Reference]:
    files = Made(**{"spread": 0.02, "output_bias": True, "target": 30, **changes}).files()
    return core.open_memory(*files), Reference(*files)


@pytest.mark.parametrize("beams", [1, 3])
def test_every_output_begins_with_the_prefix(core: Core, beams: int) -> None:
    model, reference = small(core, bad=(1,))
    oracle = Oracle(reference).eval()
    for prefix in ((7,), (9, 9, 12)):
        settings = {"num_beams": beams, "length_penalty": 0.0} if beams > 1 else {}
        wanted = oracle.search(SOURCES[0], prefix=prefix, max_length=12, **settings)
        found = model.translate(
            SOURCES[:1], max_length=12, prefix=prefix, beam_size=beams, n_best=beams, length_penalty=0.0
        )
        assert [list(output.ids) for output in found] == [row for row, _ in wanted]
        for output, (_, score) in zip(found, wanted, strict=True):
            assert output.ids[: len(prefix)] == prefix
            assert not output.token_scores[: len(prefix)].any()
            assert beams == 1 or output.score == pytest.approx(score, rel=1e-5)
    whole = model.translate(SOURCES[:1], max_length=4, prefix=(7, 8, 9), beam_size=beams)
    assert whole[0].ids == (7, 8, 9)


@pytest.mark.parametrize("beams", [1, 3])
def test_forbidden_tokens_never_come(core: Core, beams: int) -> None:
    model, reference = small(core)
    (free,) = model.translate(SOURCES[:1], beam_size=beams)
    forbidden = sorted({*free.ids})
    (found,) = model.translate(SOURCES[:1], beam_size=beams, forbidden=[*forbidden, *forbidden])
    assert not {*found.ids} & {*forbidden}
    reference.bad = forbidden
    if beams == 1:
        wanted, scores, _ = reference.greedy(SOURCES[0], 20, forced=None)
        assert tokens(found) == wanted
        assert found.token_score_bits == np.array(scores, np.float32).tobytes()
    # nothing is left: no crash, and no output that claims to be good
    (nothing,) = model.translate(SOURCES[:1], beam_size=beams, forbidden=range(30))
    assert (nothing.ids, nothing.score) == ((), -math.inf)


@pytest.mark.parametrize("beams", [1, 2])
def test_min_length(core: Core, beams: int) -> None:
    model, _ = small(core, seed=3, bad=(1,))
    lengths = {}
    for least in (0, 3, 9, 12):
        (found,) = model.translate(SOURCES[:1], max_length=12, min_length=least, beam_size=beams, length_penalty=-1.0)
        assert found.generated + 1 >= min(least, 12)
        lengths[least] = found.generated
    assert lengths[9] > lengths[0] or lengths[0] >= 8


def test_an_output_is_ended_by_force(core: Core) -> None:
    """The last token there is room for is the forced one, whatever the model thinks, and costs nothing."""
    for eos in (0, 4):
        model, _ = small(core, forced_eos=eos)
        for beams in (1, 2):
            for limit in (2, 3, 6):
                (found,) = model.translate(SOURCES[:1], max_length=limit, min_length=limit, beam_size=beams)
                assert found.generated == limit - 1
                assert tokens(found)[-1] == eos
                assert found.token_scores[-1] == 0.0


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"beam_size": 0}, "beam_size"),
    ({"beam_size": 16}, "beam_size"),
    ({"n_best": 0}, "n_best"),
    ({"n_best": 2}, "n_best"),
    ({"length_penalty": math.nan}, "length_penalty"),
    ({"length_penalty": 101.0}, "length_penalty"),
    ({"max_length": 1}, "max_length"),
    ({"max_length": 21}, "max_length"),
    ({"min_length": 21}, "min_length"),
    ({"prefix": [5] * 20}, "prefix"),
    ({"prefix": [30]}, "prefix"),
    ({"prefix": [5, 0]}, "prefix: 0 is the end token"),
    ({"forbidden": [99]}, "forbidden"),
    ({"sources": [[]]}, "0 tokens"),
    ({"sources": [[2] * 21]}, "21 tokens"),
    ({"sources": [[3, 0], [14, 0]]}, "14 is outside"),
]


@pytest.mark.parametrize(("request_", "word"), REFUSED, ids=str)
def test_what_makes_no_sense_is_refused(core: Core, request_: dict[str, Any], word: str) -> None:
    model, _ = small(core)
    with model.context() as context:
        with pytest.raises(NativeError, match=word) as caught:
            context.translate(**{"sources": SOURCES[:1], **request_})
        assert caught.value.status == ARGUMENT
        assert context.translate(SOURCES[:1])


def test_no_sentences_are_no_error(core: Core) -> None:
    assert small(core)[0].translate([]) == []
