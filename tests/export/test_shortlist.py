"""A shortlist limits the output layer to its candidates, in every graph alike, and changes nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import LogitsProcessor, LogitsProcessorList, MarianMTModel

from mobilenmt.compression.core.errors import VocabularyError
from mobilenmt.compression.pack.shortlist import ShortlistSettings, learn_shortlist, measure_coverage
from mobilenmt.export.encoder import rename
from mobilenmt.export.export import export
from mobilenmt.export.graph import FLOAT, Graph
from mobilenmt.export.precision.int8 import Int8
from mobilenmt.export.precision.protocol import Use
from mobilenmt.export.quantize.quantizer import Quantizer
from mobilenmt.export.quantize.settings import Quantization
from mobilenmt.export.shortlist import FILE_NAME, Shortlist
from mobilenmt.export.weights import WEIGHTS_FILE, WeightStore
from mobilenmt.runtime.errors import CheckpointError
from mobilenmt.runtime.hypothesis import SearchOptions
from mobilenmt.runtime.onnx.engine import Engine
from mobilenmt.runtime.onnx.ort import SessionConfig, open_session
from tiny_models import make_checkpoint

SIZE = 344


def shortlist(seed: int = 0, size: int = SIZE) -> Shortlist:
    random = np.random.default_rng(seed)
    return Shortlist(np.unique([0, *random.integers(2, size - 1, 20)]), random.integers(2, size - 1, (size, 6)))


class Only(LogitsProcessor):
    """transformers' own search, limited to given tokens."""

    def __init__(self, allowed: np.ndarray) -> None:
        self.allowed = torch.from_numpy(allowed)

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        limited = torch.full_like(scores, float("-inf"))
        limited[:, self.allowed] = scores[:, self.allowed]
        return torch.log_softmax(limited, -1)  # type: ignore[return-value]


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("lowest", [-1.0, -30.0])
def test_candidates_are_scored_right_above_and_below_what_the_shift_covers(
    lowest: float, bias: bool, tmp_path: Path
) -> None:
    random = np.random.default_rng(0)
    table, offset = random.normal(size=(60, 32)).astype(np.float32), random.normal(size=60).astype(np.float32)
    x = random.normal(size=(1, 1, 32)).astype(np.float32)
    x[0, 0, 3] = lowest
    ids, precision = np.arange(0, 60, 7), Int8(Quantizer(Quantization()))
    shift = precision.shift("table", np.ones(32, np.float32))
    assert 1.0 < shift < 30.0  # so that the quantized input has zero point 0, or not
    graph = Graph("score", WeightStore())
    value = graph.input("x", FLOAT, [1, 1, 32])
    names = precision.choose(graph, graph.constant(ids, np.int64), "table", table, offset if bias else None, shift)
    rename(graph, precision.score(graph, value, names, Use.STEP), "logits", FLOAT)
    (tmp_path / "score.onnx").write_bytes(graph.to_model("0").SerializeToString())
    graph.store.write(tmp_path / WEIGHTS_FILE)
    session = open_session(tmp_path / "score.onnx", SessionConfig())
    found = session.run(None, {"x": x + np.float32(shift)})[0]
    wanted = x @ table[ids].T + (offset[ids] if bias else 0)
    np.testing.assert_allclose(found, wanted, atol=0.02 * np.abs(x).max() * 32**0.5)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("beams", [1, 4])
def test_fp32_translates_as_torch_limited_to_the_candidates(beams: int, bias: bool, tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path / "checkpoint", seed=4)
    model = MarianMTModel.from_pretrained(checkpoint).eval()
    if bias:
        model.final_logits_bias = torch.randn(1, SIZE, generator=torch.Generator().manual_seed(0))
        model.save_pretrained(checkpoint)
    limited = shortlist()
    engine = Engine(export(checkpoint, tmp_path / "pack", precision="fp32", name="en-de", shortlist=limited))
    for seed in range(4):
        source = np.random.default_rng(seed).integers(2, SIZE - 1, 7).tolist()
        allowed = limited.candidates(np.array([*source, 0]))
        wanted = model.generate(
            torch.tensor([[*source, 0]]),
            num_beams=beams,
            do_sample=False,
            max_length=15,
            logits_processor=LogitsProcessorList([Only(allowed)]),
        )[0].tolist()[1:]
        ((found,),) = engine.generate([source], [15], SearchOptions(beam_size=beams))
        assert list(found.ids) == wanted[: wanted.index(0)]


def test_every_way_to_run_a_pack_keeps_to_the_candidates(tiny_checkpoint: Path, tmp_path: Path) -> None:
    limited = shortlist()
    engine = Engine(export(tiny_checkpoint, tmp_path / "pack", name="en-de", shortlist=limited))
    source = [30, 31, 32, 33]
    allowed = set(limited.candidates(np.array([*source, 0])).tolist())
    ((greedy,),) = engine.generate([source], [20])
    assert set(greedy.ids) <= allowed
    assert list(greedy.ids) == list(engine.steps(source, max_length=20))
    for (found,) in engine.generate([source] * 5, [20] * 5, SearchOptions(beam_size=3)):
        assert set(found.ids) <= allowed


def test_a_minimum_length_keeps_the_end_away_from_a_shortlist(tiny_checkpoint: Path, tmp_path: Path) -> None:
    everything = Shortlist(np.arange(SIZE - 1), np.zeros((SIZE, 1), np.int64))
    packs = [export(tiny_checkpoint, tmp_path / "limited", precision="fp32", name="en-de", shortlist=everything)]
    packs.append(export(tiny_checkpoint, tmp_path / "full", precision="fp32", name="en-de"))
    for beams in (1, 3):
        options = SearchOptions(beams, min_length=9)
        limited, full = (Engine(pack).generate([[40, 41]], [12], options)[0][0] for pack in packs)
        assert limited.ids == full.ids and limited.generated >= 8
        assert limited.score == pytest.approx(full.score, abs=0.02)  # beams: the pad token's share of the softmax


def test_a_shortlist_beside_the_weights_goes_into_int8_packs_only(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path / "checkpoint")
    shortlist().save(checkpoint / FILE_NAME)
    sizes = {}
    for precision in ("int8", "fp32"):
        pack = export(checkpoint, tmp_path / precision, precision=precision, name="en-de")
        sizes[precision] = b"shortlist.lexical" in pack.file("greedy.onnx").read_bytes()
    assert sizes == {"int8": True, "fp32": False}


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (Shortlist(np.array([0]), np.zeros((7, 2), np.int64)), "lexical has 7 rows"),
        (Shortlist(np.array([0, SIZE]), np.zeros((SIZE, 2), np.int64)), "outside the target vocabulary"),
        (Shortlist(np.array([2]), np.zeros((SIZE, 2), np.int64)), "the end token is not among"),
        (Shortlist(np.array([0, SIZE - 1]), np.zeros((SIZE, 2), np.int64)), "may never be generated"),
        (Shortlist(np.array([0.0]), np.zeros((SIZE, 2), np.int64)), "must be integers"),
        (Shortlist(np.array([0]), np.zeros(SIZE, np.int64)), "lexical two"),
    ],
)
def test_a_shortlist_of_another_model_is_refused(
    broken: Shortlist, message: str, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=message):
        export(tiny_checkpoint, tmp_path / "pack", name="en-de", shortlist=broken)
    assert not (tmp_path / "pack").exists()


def test_a_file_that_is_no_shortlist_is_named(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"nothing of the kind")
    with pytest.raises(CheckpointError, match="cannot be read as a shortlist"):
        Shortlist.load(tmp_path / FILE_NAME)


def made_up_pairs(count: int, seed: int) -> list[tuple[list[int], list[int]]]:
    """Word n of the source becomes 100 + n, in reverse order, between frequent words 90 and 91."""
    random = np.random.default_rng(seed)
    pairs = []
    for _ in range(count):
        source = random.integers(10, 60, random.integers(2, 8)).tolist()
        pairs.append((source, [90, *(100 + word for word in reversed(source)), 91]))
    return pairs


def test_learning_finds_the_translation_of_every_word() -> None:
    settings = ShortlistSettings(common=2, per_token=3)
    learned = learn_shortlist(
        made_up_pairs(400, 0), source_vocab_size=200, target_vocab_size=200, eos=0, banned=[199], settings=settings
    )
    assert {0, 90, 91} >= set(learned.common.tolist()) and 0 in learned.common
    for word in range(10, 60):
        assert 100 + word in learned.lexical[word] and word in learned.lexical[word]
    coverage = measure_coverage(learned, made_up_pairs(50, 1))
    assert coverage.tokens == coverage.sentences == 1.0
    assert coverage.candidates < 40


def test_learning_never_proposes_a_banned_token() -> None:
    pairs = [([5, 6], [7, 199]), ([6], [199])] * 3
    learned = learn_shortlist(pairs, source_vocab_size=200, target_vocab_size=200, eos=0, banned=[199])
    assert 199 not in learned.common and 199 not in learned.lexical


@pytest.mark.parametrize(("pairs", "message"), [([], "there are none"), ([([1], [500])], "outside the model's vocab")])
def test_pairs_that_cannot_be_learned_from_are_refused(pairs: list[tuple[list[int], list[int]]], message: str) -> None:
    with pytest.raises(VocabularyError, match=message):
        learn_shortlist(pairs, source_vocab_size=200, target_vocab_size=200, eos=0)
