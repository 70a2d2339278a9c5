"""The C core keeps to the rules of a pack and of a request as transformers' ``generate`` does."""

from __future__ import annotations

import math
from typing import Any

import pytest

from native import NativeError
from native_core import ARGUMENT, PACK, Core
from native_files import NONE, UINT16, Made
from native_oracle import Oracle
from native_reference import Reference

SOURCES = ([3, 4, 5, 6, 7, 0], [5, 0])
NO_RULE = 2**32 - 1


@pytest.mark.parametrize("beams", [1, 2, 4])
@pytest.mark.parametrize(
    ("made", "settings"),
    [
        ({"forced_bos": 5}, {"forced_bos_token_id": 5}),
        ({"not_first": (3, 4, 6, 7)}, {"begin_suppress_tokens": [3, 4, 6, 7]}),
        (
            {"forced_bos": 5, "not_first": (3, 6, 7), "forced_eos": 0, "renormalize": True},
            {
                "forced_bos_token_id": 5, "begin_suppress_tokens": [3, 6, 7], "forced_eos_token_id": 0,
                "renormalize_logits": True,
            },
        ),
        ({"ngram": 2, "least": 7}, {"no_repeat_ngram_size": 2, "min_length": 7}),
        (
            {"forced_bos": 5, "ngram": 1, "least": 30},
            {"forced_bos_token_id": 5, "no_repeat_ngram_size": 1, "min_length": 30},
        ),
    ],
    ids=str,
)  # fmt: skip
def test_a_packs_rules_are_those_of_generate(
    core: Core, made: dict[str, Any], settings: dict[str, Any], beams: int
) -> None:
    different = 0
    for seed in range(4):
        kinds = {"source": 12, "target": 16, "lexical": UINT16 if seed % 2 else 0}
        files = Made(seed=seed, spread=0.03, output_bias=True, bad=(1,), **kinds, **made).files()
        plain = Made(seed=seed, spread=0.03, output_bias=True, bad=(1,), **kinds).files()
        model, oracle = core.open_memory(*files), Oracle(Reference(*files)).eval()
        for ids in SOURCES:
            for limit in (2, 3, 11):
                beam = {"num_beams": beams, "length_penalty": 0.7} if beams > 1 else {}
                wanted = oracle.search(ids, max_length=limit, **settings, **beam)
                own = {"max_length": limit, "beam_size": beams, "n_best": beams, "length_penalty": 0.7}
                found = model.translate([ids], **own)
                for output, (row, score) in zip(found, wanted, strict=True):
                    if score < -1e6:  # generate fills up with what may not be chosen
                        assert output is not found[0] or output.score == -math.inf
                        break
                    assert list(output.ids) == row
                    assert beams == 1 or output.score == pytest.approx(score, rel=1e-5, abs=1e-6)
                different += found != core.open_memory(*plain).translate([ids], **own)
    assert different > 4


def test_a_request_comes_before_the_pack(core: Core) -> None:
    """Its prefix in place of the forced token, its n-grams, or none."""
    base: dict[str, Any] = {"spread": 0.03, "output_bias": True, "source": 12, "target": 16, "bad": (1,), "seed": 3}
    ruled = core.open_memory(*Made(forced_bos=5, ngram=1, **base).files())
    plain = core.open_memory(*Made(**base).files())
    for beams in (1, 3):
        request: dict[str, Any] = {"max_length": 12, "beam_size": beams, "n_best": beams}
        for ids in SOURCES:
            (first, *_) = ruled.translate([ids], **request)
            assert first.ids[0] == 5
            assert len({*first.ids}) == len(first.ids)
            for prefix in ((7,), (7, 8, 7)):
                wanted = plain.translate([ids], prefix=prefix, **request)
                assert ruled.translate([ids], prefix=prefix, no_repeat_ngram=NO_RULE, **request) == wanted
            wanted = plain.translate([ids], prefix=(5,), no_repeat_ngram=2, **request)
            assert ruled.translate([ids], no_repeat_ngram=2, **request) == wanted


@pytest.mark.parametrize("beams", [1, 3])
def test_every_sentence_has_a_prefix_of_its_own(core: Core, beams: int) -> None:
    model = core.open_memory(*Made(spread=0.03, output_bias=True, positions=30).files())
    sources = [[3, 4, 5, 0], [5, 0], [6, 7, 8, 9, 0], [0]] * 4
    prefixes = [[7], [], [9, 9, 12], [2, 3]] * 4
    request: dict[str, Any] = {"max_length": 12, "beam_size": beams, "n_best": beams, "alignment": 1}
    alone = [
        output
        for ids, prefix in zip(sources, prefixes, strict=True)
        for output in model.translate([ids], prefix=prefix, **request)
    ]
    for rows in (1, 5, 64):
        assert model.translate(sources, prefixes=prefixes, rows=rows, **request) == alone
    assert model.translate(sources[:2], prefixes=[[], []], **request) == model.translate(sources[:2], **request)
    for wrong in ([[7]] * 15 + [[0]], [[7]] * 15 + [[7] * 12], [[99], *[[]] * 15]):
        with pytest.raises(NativeError, match="prefix") as caught:
            model.translate(sources, prefixes=wrong, **request)
        assert caught.value.status == ARGUMENT


@pytest.mark.parametrize("beams", [1, 4])
@pytest.mark.parametrize("looks", [(1, 2, 0), (2, 1, 1), (1, 0, 1), (2, 0, 0), (0, 0, 0)])
@pytest.mark.parametrize("forced", [NONE, 0, 4])
def test_an_alignment_is_the_heads_that_the_pack_names(
    core: Core, looks: tuple[int, int, int], forced: int, beams: int
) -> None:
    made = Made(layers=(1, 2), spread=0.03, output_bias=True, looks=looks, forced_eos=forced, positions=30)
    files = made.files()
    model, reference = core.open_memory(*files), Reference(*files)
    layer, head, later = looks
    different = set()
    for ids in SOURCES:
        for limit in (2, 3, 9, 16):
            found = model.translate([ids], max_length=limit, beam_size=beams, n_best=beams, alignment=1)
            reference.encode(ids)
            for output in found:
                path = (reference.start, *output.ids)
                steps = [
                    reference.step(path[: step + 1]).weights[(layer or 2) - 1] for step in range(len(output.ids) + 1)
                ]
                rows = [int((row[head - 1] if head else row.sum(axis=0)).argmax()) for row in steps]
                # of an output that the limit ended, the step behind it was not made
                made_all = output.generated > len(output.ids) and not (forced != NONE and output.generated == limit - 1)
                made_steps = len(output.ids) + made_all - (forced == 4 and output.generated == limit - 1)
                wanted = [rows[max(0, min(i + later, made_steps - 1))] for i in range(len(output.ids))]
                if made_steps:
                    assert list(output.alignment or ()) == wanted
                    different |= {*wanted}
    assert len(different) > 1


@pytest.mark.parametrize(
    "made",
    [
        {"forced_bos": 14}, {"forced_bos": 0}, {"not_first": (3, 14)}, {"looks": (2, 0, 0)}, {"looks": (1, 3, 0)},
        {"looks": (0, 0, 2)},
    ],
    ids=str,
)  # fmt: skip
def test_rules_that_make_no_sense_are_refused(core: Core, made: dict[str, Any]) -> None:
    with pytest.raises(NativeError) as caught:
        core.open_memory(*Made(**made).files())
    assert caught.value.status == PACK
