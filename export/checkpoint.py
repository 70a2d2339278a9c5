"""Read a Hugging Face Marian checkpoint folder, and check all of it: configuration, generation defaults, tensors."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mobilenmt.export.generation import read_generation
from mobilenmt.runtime.errors import CheckpointError
from mobilenmt.runtime.manifest import GenerationDefaults
from mobilenmt.runtime.onnx.ort import first_line

Array = npt.NDArray[Any]

# Options of the original Marian toolkit that transformers' MarianMTModel does not compute. A checkpoint that sets one
# of them would translate into something else there too, so it is refused rather than exported wrongly.
_UNSUPPORTED_FLAGS = ("normalize_before", "normalize_embedding", "add_final_layer_norm", "tie_encoder_decoder")


@dataclass(frozen=True)
class MarianConfig:
    """The part of config.json that decides what is computed (names as in transformers' ``MarianConfig``)."""

    d_model: int
    encoder_layers: int
    decoder_layers: int
    encoder_attention_heads: int
    decoder_attention_heads: int
    encoder_ffn_dim: int
    decoder_ffn_dim: int
    activation_function: str
    vocab_size: int
    decoder_vocab_size: int
    max_position_embeddings: int
    scale_embedding: bool
    share_encoder_decoder_embeddings: bool
    tie_word_embeddings: bool
    pad_token_id: int
    eos_token_id: int
    decoder_start_token_id: int

    def __post_init__(self) -> None:
        for name in ("encoder", "decoder"):
            heads = getattr(self, f"{name}_attention_heads")
            if self.d_model % heads:
                raise CheckpointError(f"config.json: d_model {self.d_model} is not a multiple of {heads} {name} heads")
        for name in ("pad_token_id", "eos_token_id", "decoder_start_token_id"):
            if not 0 <= getattr(self, name) < self.decoder_vocab_size:
                raise CheckpointError(
                    f"config.json: {name} {getattr(self, name)} is outside the vocabulary of {self.decoder_vocab_size}"
                )
        if self.share_encoder_decoder_embeddings and self.vocab_size != self.decoder_vocab_size:
            raise CheckpointError(
                f"config.json: embeddings are shared, but vocab_size is {self.vocab_size} "
                f"and decoder_vocab_size {self.decoder_vocab_size}"
            )

    @property
    def embedding_scale(self) -> float:
        """Factor on the token embeddings: sqrt(d_model) or 1."""
        return math.sqrt(self.d_model) if self.scale_embedding else 1.0

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> MarianConfig:
        """Take the values from a parsed config.json; CheckpointError names what is absent or of a wrong type."""
        model_type = raw.get("model_type")
        if model_type != "marian":
            raise CheckpointError(
                f"config.json: architecture {model_type!r} is not supported; mobilenmt exports 'marian' checkpoints "
                "(a MarianMTModel, for example OPUS-MT or a student made by mobilenmt)"
            )
        for flag in _UNSUPPORTED_FLAGS:
            if raw.get(flag):
                raise CheckpointError(f"config.json: {flag}=true is not supported (transformers ignores it, too)")
        if raw.get("static_position_embeddings", True) is False:
            raise CheckpointError("config.json: static_position_embeddings=false is not supported")
        values: dict[str, Any] = dict(raw)
        values.setdefault("tie_word_embeddings", True)
        values.setdefault("share_encoder_decoder_embeddings", True)
        values.setdefault("scale_embedding", False)
        values.setdefault("activation_function", "gelu")
        values["decoder_vocab_size"] = values.get("decoder_vocab_size") or values.get("vocab_size")
        chosen: dict[str, Any] = {}
        for item in fields(cls):
            value: Any = values.get(item.name)
            wanted = {"int": int, "bool": bool, "str": str}[str(item.type)]
            if type(value) is not wanted:
                raise CheckpointError(f"config.json: {item.name} must be {item.type}, found {value!r}")
            least = 0 if item.name.endswith("_id") else 1
            if isinstance(value, int) and wanted is int and not least <= value < 2**31:
                raise CheckpointError(f"config.json: {item.name} is {value}, must be at least {least}")
            chosen[item.name] = value
        return cls(**chosen)


@dataclass(frozen=True)
class Checkpoint:
    """A checked checkpoint: ``tensors`` holds every tensor of :func:`expected_tensors`, in fp32, under those names."""

    path: Path
    config: MarianConfig
    generation: GenerationDefaults
    tensors: Mapping[str, Array] = field(repr=False)

    def __getitem__(self, name: str) -> Array:
        return self.tensors[name]

    @property
    def parameters(self) -> int:
        """Number of distinct trained values; tied tables count once, the sinusoidal positions and a zero bias not."""
        seen: dict[int, int] = {}
        for name, tensor in self.tensors.items():
            if name not in ("positions",) and not (name == "final_logits_bias" and not tensor.any()):
                seen[id(tensor)] = tensor.size
        return sum(seen.values())


def expected_tensors(config: MarianConfig) -> dict[str, tuple[int, ...]]:
    """Every trained tensor of the layers by name, with its shape (embeddings are resolved apart, they may be tied)."""
    width = config.d_model
    shapes: dict[str, tuple[int, ...]] = {}

    def affine(name: str, rows: int, columns: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (rows, columns), (rows,)

    def norm(name: str) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (width,), (width,)

    for side, layers, ffn in (
        ("encoder", config.encoder_layers, config.encoder_ffn_dim),
        ("decoder", config.decoder_layers, config.decoder_ffn_dim),
    ):
        for index in range(layers):
            prefix = f"model.{side}.layers.{index}"
            for attention in ("self_attn",) if side == "encoder" else ("self_attn", "encoder_attn"):
                for projection in ("q_proj", "k_proj", "v_proj", "out_proj"):
                    affine(f"{prefix}.{attention}.{projection}", width, width)
                norm(f"{prefix}.{attention}_layer_norm")
            affine(f"{prefix}.fc1", ffn, width)
            affine(f"{prefix}.fc2", width, ffn)
            norm(f"{prefix}.final_layer_norm")
    return shapes


def sinusoidal_positions(count: int, width: int) -> Array:
    """Table [count, width] of transformers' ``MarianSinusoidalPositionalEmbedding``: sines first, then cosines."""
    column = np.arange(width)
    angle = np.arange(count)[:, None] / np.power(10000.0, 2 * (column // 2) / width)
    table: Array = np.concatenate([np.sin(angle[:, 0::2]), np.cos(angle[:, 1::2])], axis=1).astype(np.float32)
    return table


def load_checkpoint(path: Path) -> Checkpoint:
    """Read and check a Marian checkpoint folder.

    Raises:
        CheckpointError: the folder is missing or no checkpoint, the architecture is not Marian, or tensors are
            missing, misshapen or hold NaN or infinite values (all of them are listed).
    """
    if not path.exists():
        raise CheckpointError(f"{path}: no such checkpoint folder")
    if not path.is_dir():
        raise CheckpointError(f"{path}: not a folder; give the folder that holds config.json and model.safetensors")
    raw = read_json(path / "config.json", f"{path} is no checkpoint: it has no config.json")
    config = MarianConfig.from_dict(raw)
    generation_file = path / "generation_config.json"
    generation_raw = read_json(generation_file) if generation_file.exists() else raw
    generation = read_generation(generation_raw, config.decoder_vocab_size, config.eos_token_id)
    stored = _read_tensors(path)
    return Checkpoint(path, config, generation, _select(config, stored, path))


def read_json(path: Path, missing: str = "") -> dict[str, Any]:
    """Parse a JSON object. A key listed twice is refused, because Python would silently keep the last.

    Raises:
        CheckpointError: it is something else; with the text ``missing`` if there is no such file.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            raise CheckpointError(f"{path}: listed twice: {repeated(key for key, _ in pairs)}")
        return found

    try:
        value = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=unique)
    except (OSError, ValueError, RecursionError) as error:
        absent = missing and isinstance(error, FileNotFoundError)
        raise CheckpointError(missing if absent else f"{path}: cannot be read as JSON: {error}") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: is not a JSON object")
    return value


def repeated(items: Iterable[str]) -> list[str]:
    """Those that stand there more than once, sorted; ten at most."""
    return sorted(item for item, count in Counter(items).items() if count > 1)[:10]


def _read_tensors(path: Path) -> dict[str, Array]:
    """All tensors as fp32 arrays, from safetensors (sharded too) or pytorch_model.bin (``weights_only``)."""
    import torch

    for stem, suffix in (("model", ".safetensors"), ("pytorch_model", ".bin")):
        index = path / f"{stem}{suffix}.index.json"
        files = [path / f"{stem}{suffix}"]
        if not files[0].exists() and index.exists():
            shards = read_json(index).get("weight_map")
            if not isinstance(shards, dict) or not all(isinstance(name, str) for name in shards.values()):
                raise CheckpointError(f"{index}: no usable weight_map")
            files = [path / Path(name).name for name in sorted(set(shards.values()))]
        if not files[0].exists():
            continue
        tensors: dict[str, Array] = {}
        for file in files:
            try:
                if suffix == ".bin":
                    loaded = torch.load(file, map_location="cpu", weights_only=True)
                else:
                    from safetensors.torch import load_file

                    loaded = load_file(file)
                tensors.update((name, value.detach().to(torch.float32).numpy()) for name, value in loaded.items())
            except Exception as error:  # torch, pickle, zip and safetensors each raise types of their own
                raise CheckpointError(f"{file}: cannot be read as weights: {first_line(error)}") from None
        return tensors
    raise CheckpointError(f"{path}: neither model.safetensors nor pytorch_model.bin is there")


def _select(config: MarianConfig, stored: Mapping[str, Array], path: Path) -> dict[str, Array]:
    """Resolve tied tables, check names, shapes and values; list everything that is wrong in one error."""
    problems: list[str] = []
    tensors: dict[str, Array] = {}

    def take(target: str, names: Iterable[str], shape: tuple[int, ...]) -> None:
        found = next((name for name in names if name in stored), None)
        if found is None:
            problems.append(f"{next(iter(names))} is missing, shape {list(shape)}")
        elif stored[found].shape != shape:
            problems.append(f"{found} has shape {list(stored[found].shape)}, {list(shape)} is needed")
        elif not np.isfinite(stored[found]).all():
            problems.append(f"{found} holds NaN or infinite values")
        else:
            tensors[target] = stored[found]

    source, target = (config.vocab_size, config.d_model), (config.decoder_vocab_size, config.d_model)
    encoder_name, decoder_name = "model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight"
    tied = ("lm_head.weight",) if config.tie_word_embeddings else ()
    if config.share_encoder_decoder_embeddings:
        take("source_embedding", ("model.shared.weight", encoder_name, decoder_name, *tied), source)
        if "source_embedding" in tensors:
            tensors["target_embedding"] = tensors["source_embedding"]
    else:
        take("source_embedding", (encoder_name,), source)
        take("target_embedding", (decoder_name, *tied), target)
    if not config.tie_word_embeddings:
        take("output_embedding", ("lm_head.weight",), target)
    elif "target_embedding" in tensors:
        tensors["output_embedding"] = tensors["target_embedding"]
    for name, shape in expected_tensors(config).items():
        take(name, (name,), shape)
    if "final_logits_bias" in stored:
        take("final_logits_bias", ("final_logits_bias",), (1, config.decoder_vocab_size))
    else:
        tensors["final_logits_bias"] = np.zeros((1, config.decoder_vocab_size), np.float32)
    for side in ("encoder", "decoder"):
        # A table that training has changed is kept; the usual one is computed, and need not be stored.
        name, table = f"model.{side}.embed_positions.weight", (config.max_position_embeddings, config.d_model)
        if name in stored:
            take(f"{side}_positions", (name,), table)
    if problems:
        raise CheckpointError(f"{path}: {len(problems)} tensor(s) missing or wrong: {'; '.join(problems)}")
    for side in ("encoder", "decoder"):
        key = f"{side}_positions"
        if key in tensors and np.allclose(tensors[key], sinusoidal_positions(*tensors[key].shape), atol=1e-5):
            del tensors[key]
    return tensors
