"""The student: shape, random weights, weights from a checkpoint, and what other tools make of its checkpoint."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mobilenmt.compression.core.errors import RecipeError, TrainingError
from mobilenmt.compression.train.student import (
    StudentShape,
    load_weights,
    make_student,
    save_checkpoint,
    trained_parameters,
)
from mobilenmt.compression.vocabulary.vocabulary import Vocabulary
from mobilenmt.runtime.errors import CheckpointError
from tiny_models import make_checkpoint
from training_data import SHAPE, toy_vocabulary


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Vocabulary:
    return toy_vocabulary(tmp_path_factory.mktemp("vocabulary"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"d_model": 30}, "encoder_attention_heads: 4 does not divide d_model 30"),
        ({"encoder_layers": 0}, "encoder_layers: must be at least 1, found 0"),
        ({"d_model": 9, "encoder_attention_heads": 3, "decoder_attention_heads": 3}, "d_model: must be even"),
    ],
)
def test_shape_is_checked(changes: dict[str, int], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        StudentShape(**changes)  # type: ignore[arg-type]


def test_random_weights_suit_post_norm(vocabulary: Vocabulary) -> None:
    model = make_student(SHAPE, vocabulary, seed=1)
    weights = trained_parameters(model)
    table = weights["model.shared.weight"]
    assert not table[vocabulary.pad].any()
    assert table[:-1].std().item() == pytest.approx(32**-0.5, rel=0.03)
    inner = weights["model.encoder.layers.0.fc1.weight"]
    assert inner.abs().max().item() <= (6 / (32 + 64)) ** 0.5
    assert inner.std().item() == pytest.approx((2 / (32 + 64)) ** 0.5, rel=0.1)
    biases = [value for name, value in weights.items() if name.endswith("bias")]
    norms = [value for name, value in weights.items() if name.endswith("layer_norm.weight")]
    assert (len(biases), len(norms)) == (2 * (4 + 2 + 2) + (8 + 2 + 3), 2 * 2 + 3)
    assert not any(value.any() for value in biases)
    assert all((value == 1).all() for value in norms)
    again, other = (trained_parameters(make_student(SHAPE, vocabulary, seed=seed)) for seed in (1, 2))
    assert again.keys() == other.keys() == weights.keys()
    for name, value in weights.items():
        assert torch.equal(again[name], value), name
        assert torch.equal(other[name], value) == (value.dim() == 1), name  # every matrix is drawn


def test_making_a_student_leaves_global_randomness_alone(vocabulary: Vocabulary) -> None:
    torch.manual_seed(7)
    wanted = torch.rand(3)
    torch.manual_seed(7)
    make_student(SHAPE, vocabulary, seed=1)
    assert torch.equal(torch.rand(3), wanted)


def test_weights_of_a_checkpoint_come_back(tmp_path: Path, vocabulary: Vocabulary) -> None:
    first, second = make_student(SHAPE, vocabulary, seed=1), make_student(SHAPE, vocabulary, seed=2)
    with torch.no_grad():
        for value in (*trained_parameters(first).values(), first.final_logits_bias):
            value.add_(torch.randn(value.shape))  # norms and biases differ, too
        first.model.shared.weight[vocabulary.pad] = 0
    save_checkpoint(first, vocabulary, tmp_path / "first")
    wanted, found = ({**trained_parameters(model), "bias": model.final_logits_bias} for model in (first, second))
    assert found.keys() == wanted.keys()
    assert not any(torch.equal(value, wanted[name]) for name, value in found.items())
    load_weights(second, tmp_path / "first", vocabulary)
    for name, value in found.items():
        assert torch.equal(value, wanted[name]), name


def test_foreign_checkpoint_is_read_by_names(tmp_path: Path, vocabulary: Vocabulary) -> None:
    shape = StudentShape(
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_ffn_dim=48,
        decoder_ffn_dim=64,
        max_position_embeddings=64,
    )
    folder = make_checkpoint(tmp_path / "foreign", max_position_embeddings=64)
    model = make_student(shape, vocabulary, seed=1)
    load_weights(model, folder, vocabulary)
    from transformers import MarianMTModel

    source = torch.tensor([[5, 9, 3, 0]])
    start = torch.tensor([[vocabulary.pad, 4]])
    wanted = MarianMTModel.from_pretrained(folder).eval()
    with torch.no_grad():
        wanted.model.shared.weight[vocabulary.pad] = 0  # a random checkpoint breaks the convention that ours keep
        found = model.eval()(input_ids=source, decoder_input_ids=start).logits
        torch.testing.assert_close(
            found, wanted(input_ids=source, decoder_input_ids=start).logits, rtol=1e-4, atol=1e-4
        )


@pytest.mark.parametrize(
    ("layers", "origins"),
    [((3, 1), ([0, 1, 2], [0])), ((2, 2), ([0, 2], [0, 1])), ((6, 3), ([0, 0, 1, 1, 2, 2], [0, 0, 1]))],
)
def test_layers_spread_over_a_student_with_fewer_or_more(
    tmp_path: Path, vocabulary: Vocabulary, layers: tuple[int, int], origins: tuple[list[int], list[int]]
) -> None:
    teacher = make_student(replace(SHAPE, encoder_layers=3, decoder_layers=2), vocabulary, seed=1)
    save_checkpoint(teacher, vocabulary, tmp_path / "teacher")
    student = make_student(replace(SHAPE, encoder_layers=layers[0], decoder_layers=layers[1]), vocabulary, seed=2)
    load_weights(student, tmp_path / "teacher", vocabulary, layers="spread")
    for half, whole, chosen in zip(
        (student.model.encoder, student.model.decoder),
        (teacher.model.encoder, teacher.model.decoder),
        origins,
        strict=True,
    ):
        for layer, origin in zip(half.layers, chosen, strict=True):
            for name, value in layer.named_parameters():
                assert torch.equal(value, dict(whole.layers[origin].named_parameters())[name]), (name, origin)
    assert torch.equal(student.model.shared.weight, teacher.model.shared.weight)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder_layers": 3}, r"encoder.layers.2.self_attn.*is missing.*and \d+ more"),
        ({"encoder_layers": 1}, "encoder_layers is 2, 1 is wanted"),
        ({"decoder_ffn_dim": 128}, r"decoder.layers.0.fc1.weight is \[64, 32\], \[128, 32\] is wanted"),
        ({"activation_function": "gelu"}, "activation_function is 'relu', 'gelu' is wanted"),
    ],
)
def test_weights_of_another_shape_are_refused(
    tmp_path: Path, vocabulary: Vocabulary, changes: dict[str, object], message: str
) -> None:
    save_checkpoint(make_student(SHAPE, vocabulary, seed=1), vocabulary, tmp_path / "first")
    other = StudentShape(**{**vars(SHAPE), **changes})  # type: ignore[arg-type]
    with pytest.raises(TrainingError, match=message):
        load_weights(make_student(other, vocabulary, seed=1), tmp_path / "first", vocabulary)


def test_weights_of_another_vocabulary_are_refused(tmp_path: Path, vocabulary: Vocabulary) -> None:
    save_checkpoint(make_student(SHAPE, vocabulary, seed=1), vocabulary, tmp_path / "first")
    file = tmp_path / "first" / "tokenizer.json"
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace("▁train", "▁trainx"), encoding="utf-8")
    with pytest.raises(TrainingError, match=r"another vocabulary than .*, 1 of which have another id or are missing"):
        load_weights(make_student(SHAPE, vocabulary, seed=1), tmp_path / "first", vocabulary)


def test_a_folder_without_checkpoint_is_refused(tmp_path: Path, vocabulary: Vocabulary) -> None:
    with pytest.raises(CheckpointError, match="no such checkpoint folder"):
        load_weights(make_student(SHAPE, vocabulary, seed=1), tmp_path / "nothing", vocabulary)


def test_saving_replaces_a_checkpoint_as_a_whole(tmp_path: Path, vocabulary: Vocabulary) -> None:
    for seed in (1, 2):
        save_checkpoint(make_student(SHAPE, vocabulary, seed=seed), vocabulary, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == [
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]


def test_checkpoint_passes_export_and_ctranslate2_says_the_same(tmp_path: Path, vocabulary: Vocabulary) -> None:
    ctranslate2 = pytest.importorskip("ctranslate2")
    from transformers import MarianMTModel

    from mobilenmt.export.export import export

    model = make_student(SHAPE, vocabulary, seed=4)
    with torch.no_grad():
        for value in trained_parameters(model).values():
            value.mul_(1.5)  # more decided than random weights are
    save_checkpoint(model, vocabulary, tmp_path / "student")
    pack = export(tmp_path / "student", tmp_path / "en-de", precision="int8")
    assert pack.manifest.model.parameters == sum(value.numel() for value in trained_parameters(model).values())
    ctranslate2.converters.TransformersConverter(str(tmp_path / "student")).convert(str(tmp_path / "ct2"))
    translator = ctranslate2.Translator(str(tmp_path / "ct2"), compute_type="float32")
    reference = MarianMTModel.from_pretrained(tmp_path / "student").eval()
    generator = np.random.default_rng(0)
    for _ in range(5):
        ids = [*generator.integers(2, vocabulary.pad, 6).tolist(), 0]
        found = translator.translate_batch([vocabulary.pieces(ids)], beam_size=1, max_decoding_length=11)
        with torch.no_grad():
            wanted = reference.generate(torch.tensor([ids]), num_beams=1, do_sample=False, max_length=13)[0].tolist()[
                :-1
            ]
        words = [piece for piece in vocabulary.pieces(wanted[1:]) if piece not in ("</s>", "<pad>")]
        assert found[0].hypotheses[0] == words
