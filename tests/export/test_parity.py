"""fp32 packs compute what torch computes: states, logits, greedy and beam search, over the configuration space."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from transformers import MarianMTModel

from mobilenmt.export.layers import ACTIVATIONS
from mobilenmt.export.verify import StepRunner
from mobilenmt.runtime.hypothesis import Hypothesis, SearchOptions
from mobilenmt.runtime.onnx.engine import Engine
from mobilenmt.runtime.onnx.ort import SessionConfig
from mobilenmt.runtime.pack import Pack
from tiny_models import make_checkpoint

TOLERANCE = 1e-4
LENGTHS = (9, 4, 1, 12, 6)

SHAPES: dict[str, dict[str, Any]] = {
    "one layer": {"encoder_layers": 1, "decoder_layers": 1},
    "three layers": {"encoder_layers": 3, "decoder_layers": 3},
    "deep encoder": {"encoder_layers": 3, "decoder_layers": 1},
    "odd head size": {"d_model": 30, "encoder_attention_heads": 2, "decoder_attention_heads": 6},
    "odd width": {"d_model": 21, "encoder_attention_heads": 3, "decoder_attention_heads": 1},
    "no scale": {"scale_embedding": False},
    "separate embeddings": {"share_encoder_decoder_embeddings": False},
    "untied output": {"share_encoder_decoder_embeddings": False, "tie_word_embeddings": False},
}

GENERATION: dict[str, dict[str, Any]] = {
    "defaults": {},
    "no forced end": {"forced_eos_token_id": None},
    "renormalized": {"renormalize_logits": True},
    "no bad words": {"bad_words_ids": None},
    "long is better": {"num_beams": 4, "length_penalty": 2.0},
    "short is better": {"num_beams": 4, "length_penalty": -0.5},
    "early stopping": {"num_beams": 4, "early_stopping": True},
    "never early": {"num_beams": 4, "early_stopping": "never", "length_penalty": 1.3},
}


def random_sources(vocabulary: int, seed: int = 0) -> list[list[int]]:
    """Ids of sentences of several lengths, the end token not included."""
    random = np.random.default_rng(seed)
    return [random.integers(2, vocabulary - 1, size=length).tolist() for length in LENGTHS]


def padded(sources: list[list[int]], pad: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    lengths = np.array([len(source) + 1 for source in sources])
    ids = np.full((len(sources), lengths.max()), pad, np.int64)
    for row, source in zip(ids, sources, strict=True):
        row[: len(source) + 1] = [*source, 0]
    return ids, lengths


def load(checkpoint: Path) -> MarianMTModel:
    return MarianMTModel.from_pretrained(checkpoint).eval()


def clean(row: torch.Tensor, model: MarianMTModel) -> list[int]:
    """Ids between the start token and the end."""
    ids = row.tolist()[1:]
    if 0 in ids:
        return ids[: ids.index(0)]
    while ids and ids[-1] == model.config.pad_token_id:
        ids.pop()
    return ids


def compare_states(checkpoint: Path, pack: Path) -> None:
    model = load(checkpoint)
    sources = random_sources(model.config.vocab_size)
    ids, lengths = padded(sources, model.config.pad_token_id)
    mask = torch.from_numpy((np.arange(ids.shape[1]) < lengths[:, None]).astype(np.int64))
    targets = np.random.default_rng(1).integers(2, model.config.decoder_vocab_size - 1, size=(len(sources), 7))
    targets[:, 0] = model.config.decoder_start_token_id
    with torch.no_grad():
        out = model(input_ids=torch.from_numpy(ids), attention_mask=mask, decoder_input_ids=torch.from_numpy(targets))
    runner = StepRunner(Pack.open(pack))
    state = runner.encode(ids, lengths)["encoder_state"]
    for row, length in enumerate(lengths):
        wanted = out.encoder_last_hidden_state[row, :length].numpy()
        np.testing.assert_allclose(state[row, :length], wanted, atol=TOLERANCE)
    np.testing.assert_allclose(runner.logits(ids, lengths, targets), out.logits.numpy(), atol=TOLERANCE)


def compare_search(checkpoint: Path, pack: Path, beams: int, max_length: int = 20, min_length: int = 0) -> None:
    """Every sentence gives the ids and scores that ``generate`` gives for it, alone (greedy.onnx, translator.onnx) and
    together with others (batch.onnx)."""
    model = load(checkpoint)
    sources = random_sources(model.config.vocab_size, seed=beams)
    engine = Engine(Pack.open(pack))
    limits = [max_length] * len(sources)
    options = SearchOptions(beams, beams, min_length)
    found = engine.generate(sources, limits, options)
    together = engine.generate(sources, limits, replace(options, together=True))
    penalty = model.generation_config.length_penalty
    for source, hypotheses, others in zip(sources, found, together, strict=True):
        out = model.generate(
            torch.tensor([[*source, 0]]),
            num_beams=beams,
            num_return_sequences=beams,
            do_sample=False,
            max_length=max_length,
            min_length=min_length,
            return_dict_in_generate=True,
            output_scores=True,
        )
        wanted = [clean(row, model) for row in out.sequences]
        assert [list(item.ids) for item in hypotheses] == [list(item.ids) for item in others] == wanted
        if beams > 1:
            scores = out.sequences_scores.tolist()
        else:
            steps = model.compute_transition_scores(out.sequences, out.scores, normalize_logits=True)[0]
            scores = [float(steps.sum()) / len(steps) ** penalty]
        for group in (hypotheses, others):
            np.testing.assert_allclose([item.score for item in group], scores, atol=1e-3)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation_gives_torchs_states_and_logits(
    name: str, tmp_path: Path, make_pack: Callable[..., Path]
) -> None:
    shape = {"encoder_layers": 1, "decoder_layers": 1, "activation_function": name}
    checkpoint = make_checkpoint(tmp_path / "checkpoint", **shape)
    compare_states(checkpoint, make_pack(checkpoint, "fp32"))


@pytest.mark.parametrize("name", SHAPES)
def test_every_shape_gives_torchs_states_logits_and_outputs(
    name: str, tmp_path: Path, make_pack: Callable[..., Path]
) -> None:
    checkpoint = make_checkpoint(tmp_path / "checkpoint", **SHAPES[name])
    pack = make_pack(checkpoint, "fp32")
    compare_states(checkpoint, pack)
    for beams in (1, 4):
        compare_search(checkpoint, pack, beams)


@pytest.mark.parametrize("name", GENERATION)
def test_every_generation_default_gives_torchs_ids_and_scores(
    name: str, tmp_path: Path, make_pack: Callable[..., Path]
) -> None:
    checkpoint = make_checkpoint(tmp_path / "checkpoint", seed=3, generation=GENERATION[name], forced_eos_token_id=None)
    pack = make_pack(checkpoint, "fp32")
    for beams in (1, 2, 4):
        compare_search(checkpoint, pack, beams)
    compare_search(checkpoint, pack, 4, max_length=9, min_length=6)
    compare_search(checkpoint, pack, 1, max_length=9, min_length=6)
    compare_search(checkpoint, pack, 1, max_length=2)


@pytest.mark.parametrize("beams", [1, 3])
def test_a_batch_gives_what_single_sentences_give(
    beams: int, tiny_checkpoint: Path, make_pack: Callable[..., Path]
) -> None:
    for batched, alone in _batched_and_alone(make_pack(tiny_checkpoint, "fp32"), beams):
        assert _key(batched) == _key(alone)


@pytest.mark.parametrize("beams", [1, 3])
def test_an_int8_batch_scores_nearly_as_single_sentences_do(beams: int, tiny_pack: Path) -> None:
    """The rows of a batch share the scale of their activations. Random weights hardly prefer any token to another, so
    ids may differ; how probable the result is may not (measured: 0.03 in the mean)."""
    found = _batched_and_alone(tiny_pack, beams)
    assert np.mean([abs(batched.score - alone.score) for batched, alone in found]) < 0.06
    assert np.mean([batched.ids == alone.ids for batched, alone in found]) > 0.4


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("beams", [1, 3])
def test_int8_sentences_come_out_as_they_do_alone_unless_put_together(
    beams: int, threads: int, tiny_pack: Path
) -> None:
    found = _batched_and_alone(tiny_pack, beams, together=False, threads=threads)
    assert len(found) > 30
    for batched, alone in found:
        assert batched == alone


def test_threads_that_work_together_give_what_one_gives(tiny_pack: Path) -> None:
    one = _batched_and_alone(tiny_pack, 1)
    two = _batched_and_alone(tiny_pack, 1, threads=2)
    assert [batched for batched, _ in two] == [batched for batched, _ in one]


@pytest.mark.parametrize(
    ("lengths", "wanted"),
    [
        ([10] * 16, [16]),
        ([10] * 20, [10, 10]),  # rather than 16 and 4
        ([60] * 4 + [10] * 30, [10, 12, 12]),  # 640 tokens at most, 60 of a source and its end token in each row
        ([10, 10, 10], [3]),
    ],
)
def test_sentences_put_together_are_of_like_number_and_no_more_than_a_cache_holds(
    lengths: list[int], wanted: list[int], tiny_pack: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []

    def run(self: Engine, sources: list[list[int]], *arguments: Any) -> list[list[Hypothesis]]:
        sizes.append(len(sources))
        return [[Hypothesis((9,), -1.0, 2)] for _ in sources]

    monkeypatch.setattr(Engine, "_run", run)
    engine = Engine(Pack.open(tiny_pack))
    sources = [[9] * length for length in lengths]
    engine.generate(sources, [12] * len(sources), SearchOptions(together=True))
    assert sorted(sizes) == wanted


def _batched_and_alone(
    pack: Path, beams: int, together: bool = True, threads: int = 1
) -> list[tuple[Hypothesis, Hypothesis]]:
    engine = Engine(Pack.open(pack), SessionConfig(threads=threads))
    sources = [source for seed in range(8) for source in random_sources(300, seed)]
    limits = [10 + index % 13 for index in range(len(sources))]
    found = engine.generate(sources, limits, SearchOptions(beam_size=beams, together=together))
    pairs = []
    for source, limit, (batched,) in zip(sources, limits, found, strict=True):
        ((alone,),) = engine.generate([source], [limit], SearchOptions(beam_size=beams))
        pairs.append((batched, alone))
    return pairs


def _key(item: Hypothesis) -> tuple[Any, ...]:
    return item.ids, item.generated, item.at_limit, round(item.score, 3)


def test_int8_stays_within_a_stated_distance_of_fp32(
    tiny_checkpoint: Path, tiny_pack: Path, tiny_fp32_pack: Path
) -> None:
    """6 % of the logits' spread on random weights (measured: 4.2 %)."""
    ids, lengths = padded(random_sources(300), 0)
    targets = np.random.default_rng(1).integers(2, 300, size=(len(ids), 7))
    reference = StepRunner(Pack.open(tiny_fp32_pack)).logits(ids, lengths, targets)
    found = StepRunner(Pack.open(tiny_pack)).logits(ids, lengths, targets)
    assert np.sqrt(np.square(found - reference).mean()) < 0.06 * reference.std()


@pytest.mark.parametrize("max_length", [2, 3])
@pytest.mark.parametrize("forced", [0, None])
@pytest.mark.parametrize("beams", [1, 3])
def test_the_shortest_limits_give_torchs_outputs(
    beams: int, forced: int | None, max_length: int, tmp_path: Path, make_pack: Callable[..., Path]
) -> None:
    defaults = {"forced_eos_token_id": forced}
    checkpoint = make_checkpoint(tmp_path / "checkpoint", generation=defaults, **defaults)
    compare_search(checkpoint, make_pack(checkpoint, "fp32"), beams, max_length=max_length)


def test_streamed_ids_are_the_greedy_ids(tiny_pack: Path) -> None:
    engine = Engine(Pack.open(tiny_pack))
    for source in random_sources(300):
        ((whole,),) = engine.generate([source], [20])
        assert list(engine.steps(source, max_length=20)) == list(whole.ids)


def test_greedy_words_equal_ctranslate2(tiny_checkpoint: Path, tiny_fp32_pack: Path, tmp_path: Path) -> None:
    """An independent engine, converted from the same checkpoint, chooses the same words in fp32."""
    import ctranslate2

    # CTranslate2 starts from a zero embedding and drops the last row: make the pad row zero, as the conventions ask.
    model = load(tiny_checkpoint)
    with torch.no_grad():
        model.model.shared.weight[-1] = 0
    folder = tmp_path / "zeroed"
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((tiny_checkpoint / name).read_bytes())
    from mobilenmt.export.export import export

    pack = export(folder, tmp_path / "en-de", precision="fp32")
    ctranslate2.converters.TransformersConverter(str(folder)).convert(str(tmp_path / "ct2"))
    peer = ctranslate2.Translator(str(tmp_path / "ct2"), compute_type="float32")
    from mobilenmt.runtime.tokenizer import Tokenizer

    manifest = pack.manifest
    tokenizer = Tokenizer(pack.file("tokenizer.json"), manifest.tokens, manifest.model.source_vocab_size)
    sources = random_sources(300)
    found = Engine(pack).generate(sources, [20] * len(sources))
    for source, (ours,) in zip(sources, found, strict=True):
        pieces = [*tokenizer.pieces(source), "</s>"]
        theirs = peer.translate_batch([pieces], beam_size=1, max_decoding_length=18)[0].hypotheses[0]
        assert tokenizer.pieces(ours.ids)[:18] == theirs
