"""native.bin: what the C core reads beside weights.bin, from a pack's manifest, graphs and tokenizers.

The graphs say where each tensor lies in weights.bin, so the file is made of any int8 pack, old ones too. Its format is
in ``docs/core/native-format.md``.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from pathlib import Path

from mobilenmt.export.native.records import LATER_KINDS, Tensors, all_records, factor_in_scales
from mobilenmt.export.native.tokenizer import NONE, NotExpressible, tokenizer_table
from mobilenmt.export.weights import WEIGHTS_FILE
from mobilenmt.runtime.manifest import GenerationDefaults, PackManifest
from mobilenmt.runtime.pack import read_manifest

NATIVE_FILE = "native.bin"
_HEADER = 192
_EARLY = {False: 0, True: 1, "never": 2}
_ACTIVATIONS: dict[str, int] = {
    name: number
    for number, names in enumerate(
        (
            "relu", "gelu gelu_python", "gelu_accurate gelu_fast gelu_new gelu_pytorch_tanh gelu_python_tanh",
            "gelu_10", "silu swish", "quick_gelu", "tanh", "sigmoid", "linear", "leaky_relu", "mish", "relu2", "relu6",
            "laplace",
        )
    )
    for name in names.split()
}  # fmt: skip


def native_bytes(
    folder: Path, manifest: PackManifest | None = None, *, report: Callable[[str], None] = lambda line: None
) -> bytes | None:
    """The content of native.bin for the pack in ``folder``.

    Args:
        folder: holds the graphs, weights.bin and the tokenizers.
        manifest: what pack.json says or will say; by default it is read.
        report: receives a line that says why there is none.

    Returns:
        None for a pack that runs on its graphs alone: fp32, or with something the format has no form for.
    """
    manifest = manifest or read_manifest(folder)
    try:
        if manifest.precision != "int8":
            raise NotExpressible(f"its precision is {manifest.precision}")
        if manifest.format_version < (2, 0):
            raise NotExpressible("its format is 1, whose matrices lie otherwise")
        return _file(folder, manifest)
    except NotExpressible as reason:
        report(f"no {NATIVE_FILE}: {reason}")
        return None


def _file(folder: Path, manifest: PackManifest) -> bytes:
    model, tokens, generation = manifest.model, manifest.tokens, manifest.generation
    tensors = Tensors(folder, manifest)
    size = (folder / WEIGHTS_FILE).stat().st_size
    records = list(all_records(tensors))
    target = folder / "tokenizer.target.json"
    text = (folder / "tokenizer.json").read_text(encoding="utf-8")
    parts = [
        _ids(generation.bad_token_ids),
        b"".join(records),
        tokenizer_table(text, tokens, model.source_vocab_size),
    ]
    if target.is_file():
        table = tokenizer_table(target.read_text(encoding="utf-8"), tokens, model.source_vocab_size, encodes=False)
        parts.append(table)
    if generation.begin_suppress_tokens:
        parts.append(_ids(generation.begin_suppress_tokens))
    content, offsets = bytearray(_HEADER), []
    for part in parts:
        content += bytes(-len(content) % 64)
        offsets.append(len(content))
        content += part
    if model.activation_function not in _ACTIVATIONS:
        raise NotExpressible(f"its activation function is {model.activation_function}")

    # A core that knows no 4 bits and no fp32 is to say that the file is newer than it.
    version = 2 if any(record[0] in LATER_KINDS for record in records) else 1

    def optional(token: int | None) -> int:
        return NONE if token is None else token

    content[:128] = struct.pack(
        "<8s2I7I I3I5I I f 2I2I2I2I Q",
        b"MNMTCORE", version, 2 * generation.renormalize_logits + 4 * has_rules(generation),
        model.d_model, model.encoder_layers, model.decoder_layers, model.encoder_attention_heads,
        model.decoder_attention_heads, model.encoder_ffn_dim, model.decoder_ffn_dim,
        _ACTIVATIONS[model.activation_function],
        model.source_vocab_size, model.target_vocab_size, model.max_positions,
        tokens.start, tokens.eos, tokens.pad, optional(tokens.unk), optional(generation.forced_eos_token_id),
        _EARLY[generation.early_stopping],
        1.0 if factor_in_scales(tensors) else tensors.factor,
        offsets[0], len(generation.bad_token_ids), offsets[1], len(records), offsets[2], len(parts[2]),
        *((offsets[3], len(parts[3])) if target.is_file() else (0, 0)),
        size,
    )  # fmt: skip
    if manifest.alignment is not None:
        head = manifest.alignment.head
        places = (manifest.alignment.layer + 1, 0 if head is None else head + 1, manifest.alignment.later)
        content[128:140] = struct.pack("<3I", *places)
    if has_rules(generation):
        first = generation.begin_suppress_tokens
        content[140:160] = struct.pack(
            "<5I", optional(generation.forced_bos_token_id), offsets[-1] if first else 0, len(first),
            min(generation.no_repeat_ngram_size, NONE), min(generation.min_length, NONE),
        )  # fmt: skip
    return bytes(content)


def has_rules(generation: GenerationDefaults) -> bool:
    """Whether a search has rules that the first readers of the format do not know."""
    return bool(
        generation.forced_bos_token_id is not None
        or generation.begin_suppress_tokens
        or generation.no_repeat_ngram_size
        or generation.min_length > 1
    )


def _ids(tokens: Sequence[int]) -> bytes:
    return struct.pack(f"<{len(tokens)}I", *tokens)
