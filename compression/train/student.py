"""The student: a Hugging Face ``MarianMTModel`` of a given shape, from random weights or from a checkpoint.

Conventions of Marian checkpoints, which export and CTranslate2 rely on: ``</s>`` is id 0, ``<unk>`` 1 and ``<pad>`` the
last id; decoding starts from ``<pad>``, whose embedding row is zero and which is never generated.
"""

from __future__ import annotations

import itertools
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mobilenmt.compression.core.errors import RecipeError, TrainingError
from mobilenmt.runtime.atomic import atomic_path

if TYPE_CHECKING:
    import torch
    from transformers import MarianMTModel

    from mobilenmt.compression.vocabulary.vocabulary import Vocabulary

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
DROPOUT = ("dropout", "attention_dropout", "activation_dropout")
"""Names of dropouts, in settings as in ``MarianConfig``."""


@dataclass(frozen=True)
class StudentShape:
    """Dimensions of a Transformer (names as in transformers' ``MarianConfig``). Embeddings are tied, all three."""

    d_model: int = 256
    """Width."""
    encoder_layers: int = 6
    """Encoder layers; deep encoders are cheap, they run once a sentence."""
    decoder_layers: int = 2
    """Decoder layers; each runs once a token."""
    encoder_attention_heads: int = 4
    """Heads of each encoder attention; divides the width."""
    decoder_attention_heads: int = 4
    """Heads of each decoder attention; divides the width."""
    encoder_ffn_dim: int = 1024
    """Inner width of the encoder's feed-forward layers."""
    decoder_ffn_dim: int = 1024
    """Inner width of the decoder's feed-forward layers."""
    activation_function: Literal["relu", "gelu", "swish"] = "relu"
    """Activation of the feed-forward layers; relu is the fastest."""
    max_position_embeddings: int = 256
    """Longest sentence the model has positions for, in tokens."""

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            value = getattr(self, name)
            if isinstance(value, int) and value < 1:
                raise RecipeError(f"{name}: must be at least 1, found {value}")
        for side in ("encoder", "decoder"):
            heads = getattr(self, f"{side}_attention_heads")
            if self.d_model % heads:
                raise RecipeError(f"{side}_attention_heads: {heads} does not divide d_model {self.d_model}")
        if self.d_model % 2:
            raise RecipeError(f"d_model: must be even, for sinusoidal positions, found {self.d_model}")


def make_student(shape: StudentShape, vocabulary: Vocabulary, *, seed: int, **dropout: float) -> MarianMTModel:
    """A model of random weights, in training mode, fp32 on the CPU, with :data:`DROPOUT` as given, 0 by default.

    Matrices are Xavier-uniform (Glorot & Bengio 2010), with fan-out counted over query, key and value together where
    they share an input, as fairseq does; embeddings normal with deviation width^-0.5, the padding row zero; biases
    zero; norms one. transformers' own initialization (deviation 0.02 throughout) learns very slowly with post-norm.
    """
    import torch
    from transformers import MarianMTModel

    config: Any = _config(shape, vocabulary, dropout)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = MarianMTModel(config)
        bias: Any = model.final_logits_bias
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if not parameter.requires_grad:
                    continue  # sinusoidal positions
                if name == "model.shared.weight":
                    parameter.normal_(0.0, shape.d_model**-0.5)
                elif name.endswith("bias"):
                    parameter.zero_()
                elif "layer_norm" in name:
                    parameter.fill_(1.0)
                else:
                    together = any(part in name for part in ("q_proj", "k_proj", "v_proj"))
                    torch.nn.init.xavier_uniform_(parameter, gain=2**-0.5 if together else 1.0)
            bias.zero_()
            model.model.shared.weight[vocabulary.pad].zero_()
    model.generation_config = _generation(shape, vocabulary)
    model.train()
    return model


def load_weights(
    model: MarianMTModel, checkpoint: Path, vocabulary: Vocabulary, *, layers: Literal["same", "spread"] = "same"
) -> None:
    """Fill a model from a checkpoint folder.

    Args:
        model: what is filled.
        checkpoint: a folder with a Marian checkpoint of the same width.
        vocabulary: the model's.
        layers: ``same``: as many layers as the model has. ``spread``: layers are taken evenly from the checkpoint's,
            the first and the last included, so that a student starts from every other layer of its teacher (Shleifer
            & Rush 2020, section 3), and a deep model from each layer of a shallow one several times (Gong et al.
            2019, section 3). A single layer is taken from the first.

    Raises:
        CheckpointError: the folder is no Marian checkpoint, or a damaged one.
        TrainingError: its vocabulary or its shape is another; every difference is named.
    """
    import torch

    from mobilenmt.export.checkpoint import load_checkpoint

    loaded = load_checkpoint(checkpoint)
    check_same_vocabulary(checkpoint, vocabulary)
    stored = dict(loaded.tensors)
    if "source_embedding" in stored:
        if stored["source_embedding"] is not stored["target_embedding"]:
            raise TrainingError(f"{checkpoint}: source and target embeddings differ; a student ties them")
        if stored["output_embedding"] is not stored["target_embedding"]:
            raise TrainingError(f"{checkpoint}: the output layer is not tied to the embedding; a student ties them")
        stored["model.shared.weight"] = stored["source_embedding"]
    wrong = []
    for key in ("activation_function", "scale_embedding"):
        found, wanted = getattr(loaded.config, key), getattr(model.config, key)
        if found != wanted:
            wrong.append(f"{key} is {found!r}, {wanted!r} is wanted")
    depth = {side: getattr(loaded.config, f"{side}_layers") for side in ("encoder", "decoder")}
    wanted_depth = {side: getattr(model.config, f"{side}_layers") for side in depth}
    chosen: dict[str, torch.Tensor] = {}
    for name, parameter in trained_parameters(model).items():
        origin = name if layers == "same" else _spread(name, depth, wanted_depth)
        if origin not in stored:
            wrong.append(f"{origin} is missing")
        elif stored[origin].shape != tuple(parameter.shape):
            wrong.append(f"{origin} is {list(stored[origin].shape)}, {list(parameter.shape)} is wanted")
        else:
            chosen[name] = torch.from_numpy(stored[origin])
    if layers == "same":
        wrong += [
            f"{side}_layers is {depth[side]}, {wanted_depth[side]} is wanted"
            for side in depth
            if depth[side] > wanted_depth[side]
        ]
    if wrong:
        shown = "; ".join(wrong[:5]) + (f"; and {len(wrong) - 5} more" if len(wrong) > 5 else "")
        raise TrainingError(f"{checkpoint} does not fit the shape: {shown}. Give it in [student], or start afresh")
    with torch.no_grad():
        for name, parameter in trained_parameters(model).items():
            parameter.copy_(chosen[name])
        bias: Any = model.final_logits_bias
        bias.copy_(torch.from_numpy(stored["final_logits_bias"]))
        model.model.shared.weight[vocabulary.pad].zero_()


def _spread(name: str, depth: Mapping[str, int], wanted: Mapping[str, int]) -> str:
    """Name of the parameter that a parameter is taken from, if layers are spread."""
    found = re.fullmatch(r"model\.(encoder|decoder)\.layers\.(\d+)\.(.+)", name)
    if found is None:
        return name
    side, number, rest = found[1], int(found[2]), found[3]
    origin = round(number * (depth[side] - 1) / max(1, wanted[side] - 1))
    return f"model.{side}.layers.{origin}.{rest}"


def check_same_vocabulary(checkpoint: Path, vocabulary: Vocabulary) -> None:
    """TrainingError or VocabularyError unless a checkpoint's tokenizer.json has the same pieces under the same ids."""
    from mobilenmt.compression.vocabulary.vocabulary import Vocabulary

    theirs, ours = (known.pieces(range(known.size)) for known in (Vocabulary.load(checkpoint), vocabulary))
    if theirs != ours:
        different = sum(their != our for their, our in itertools.zip_longest(theirs, ours))
        raise TrainingError(
            f"{checkpoint} has another vocabulary than {vocabulary.path}: {len(theirs):,} pieces against "
            f"{len(ours):,}, {different:,} of which have another id or are missing; take the one it was trained with"
        )


def check_state(path: Path, model: MarianMTModel, vocabulary: Vocabulary) -> None:
    """Check that a run of this model can start from a saved state: TrainingError if it cannot.

    A state has no pieces in it; they are compared if its run kept a checkpoint beside it.
    """
    from mobilenmt.compression.train.resume import open_state

    stored = open_state(path).tensors.get("model", {})
    wanted = {name: list(value.shape) for name, value in trained_parameters(model).items()}
    found = {name: list(value.shape) for name, value in stored.items() if not name.startswith("quantization.")}
    if found != wanted:
        name = next(name for name in {**wanted, **found} if found.get(name) != wanted.get(name))
        raise TrainingError(
            f"{path} is the state of another model: {name} is {found.get(name, 'missing')}, "
            f"{wanted.get(name, 'nothing')} is wanted. Give its shape in [student], its pieces in vocabulary.initial"
        )
    for near in path.absolute().parents[:2]:
        if (near / "best" / "tokenizer.json").is_file():
            check_same_vocabulary(near / "best", vocabulary)


def trained_parameters(model: MarianMTModel) -> dict[str, torch.nn.Parameter]:
    """Parameters by name, each once, without the sinusoidal positions."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def save_checkpoint(model: MarianMTModel, vocabulary: Vocabulary, folder: Path, beside: Sequence[Path] = ()) -> None:
    """Write a checkpoint folder with its tokenizer, atomically, in place of one that is there.

    Files of ``beside`` that are there are copied into it.

    Raises TrainingError if the disk refuses.
    """
    from safetensors import SafetensorError

    try:
        with atomic_path(folder) as temporary:
            temporary.mkdir()
            model.save_pretrained(temporary)
            for path in (*(vocabulary.path.parent / name for name in TOKENIZER_FILES), *beside):
                if path.is_file():
                    shutil.copyfile(path, temporary / path.name)
    except (OSError, SafetensorError) as error:
        raise TrainingError(f"{folder}: cannot be written: {error}") from error


def _config(shape: StudentShape, vocabulary: Vocabulary, dropout: Mapping[str, float]) -> Any:
    from transformers import MarianConfig

    return MarianConfig(  # type: ignore[no-untyped-call]
        **{name: getattr(shape, name) for name in shape.__dataclass_fields__},
        vocab_size=vocabulary.size,
        decoder_vocab_size=vocabulary.size,
        **{**dict.fromkeys(DROPOUT, 0.0), **dropout},
        encoder_layerdrop=0.0,
        decoder_layerdrop=0.0,
        scale_embedding=True,
        share_encoder_decoder_embeddings=True,
        pad_token_id=vocabulary.pad,
        eos_token_id=vocabulary.eos,
        decoder_start_token_id=vocabulary.pad,
        forced_eos_token_id=vocabulary.eos,
        attn_implementation="sdpa",
    )


def _generation(shape: StudentShape, vocabulary: Vocabulary) -> Any:
    from transformers import GenerationConfig

    return GenerationConfig(  # type: ignore[no-untyped-call]
        max_length=shape.max_position_embeddings,
        pad_token_id=vocabulary.pad,
        eos_token_id=vocabulary.eos,
        decoder_start_token_id=vocabulary.pad,
        forced_eos_token_id=vocabulary.eos,
        bad_words_ids=[[vocabulary.pad]],
    )
