"""How many bytes the pack of a student takes, from its shape alone.

weights.bin and native.bin follow from the shape to the byte, a line of the cache or two aside. The graphs are as many
nodes a layer whatever its width. What a tokenizer takes depends on its text: for one that is there it is counted
(:func:`tokenizer_bytes`), for one to be trained it is what BPE of English and German took.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mobilenmt.compression.train.size import count_in_matrices, count_in_vectors
from mobilenmt.compression.train.student import StudentShape
from mobilenmt.export.quantize.forms import Form, block_size, find_form
from mobilenmt.export.quantize.settings import Quantization

if TYPE_CHECKING:
    from mobilenmt.compression.pack.shortlist import ShortlistSettings

_PIECES = (256, 1_000, 2_000, 4_000, 6_000, 8_000, 12_000, 16_000, 24_000, 32_000)
_TOKENIZER_BYTES = (4_000, 19_654, 46_658, 104_396, 164_860, 227_464, 358_086, 494_140, 771_104, 1_052_980)
"""Of tokenizer.json by its pieces: BPE of 200,000 pairs of English and German, 96 letters."""
_TABLE_BYTES = (4_300, 24_264, 51_768, 108_640, 166_864, 226_160, 346_456, 468_480, 714_936, 963_848)
"""Of the same tokenizers' tables in native.bin."""
GRAPH_BYTES = {"int8": (44_900, 14_950, 31_900), "fp32": (34_600, 12_300, 22_800)}
"""The five graphs and pack.json take about this much, and as much more for each encoder and each decoder layer."""
SHORTLIST_GRAPH_BYTES = 5_100
"""What a shortlist adds to the graphs."""
_TABLE, _QKV, _CROSS = "source_embedding", "self_attn.q_proj+k_proj+v_proj", "encoder_attn.k_proj+v_proj"
"""Names in the exporter; the last one goes on for each decoder layer."""
COMPACT_GRAPH_BYTES = (33_600, 12_500, 25_900)
"""Likewise of packs of other forms, whose graphs have short names."""
_FORM_GRAPH_BYTES = {
    "int8": (0, 0, 0, 0),
    "int8-wide": (700, 100, 900, 500),
    "int4": (800, 440, 1_500, 2_300),
    "fp32": (-570, -1_245, -860, -2_600),
}
"""What a matrix of each kind adds to those: of the encoder, of the decoder, keys and values of the source, a table."""
_FUNCTION_GRAPH_BYTES = 2_400
"""What the expansion of 4 bits adds once."""
_LINE = 64  # bytes; tensors of weights.bin begin at multiples


@dataclass(frozen=True)
class PackParts:
    """Bytes of a pack by what they grow with: ``fixed + encoder * encoder layers + decoder * decoder layers``."""

    fixed: int
    encoder: int
    decoder: int

    def total(self, encoder_layers: int, decoder_layers: int) -> int:
        """Bytes of all files."""
        return self.fixed + self.encoder * encoder_layers + self.decoder * decoder_layers


def estimate_pack_bytes(
    shape: StudentShape,
    vocabulary: int,
    precision: str = "int8",
    *,
    shortlist: ShortlistSettings | None = None,
    tokenizer_bytes: int | None = None,
    native_bytes: int | None = None,
    quantization: Quantization | None = None,
) -> int:
    """Bytes of all files of a pack, within a percent if its tokenizer is like those this was measured with.

    INT8: a byte for each element of a matrix, and fp32 scales for its rows; vectors are fp32.

    Args:
        shape: dimensions of the student.
        vocabulary: pieces, ``<pad>`` included.
        precision: ``int8`` or ``fp32``.
        shortlist: sizes of the pack's shortlist; None for a pack without one.
        tokenizer_bytes: size of tokenizer.json if it is known.
        native_bytes: likewise of native.bin.
        quantization: forms of the matrices of an int8 pack; None for int8 of all of them.
    """
    table = None
    if native_bytes is not None:
        table = native_bytes - _native_beside_table(shape.encoder_layers, shape.decoder_layers)
    parts = pack_parts(
        shape,
        vocabulary,
        precision,
        shortlist=shortlist,
        tokenizer_bytes=tokenizer_bytes,
        table_bytes=table,
        quantization=quantization,
    )
    found = parts.total(shape.encoder_layers, shape.decoder_layers)
    if quantization is None:
        return found
    for side, layers in (("encoder", shape.encoder_layers), ("decoder", shape.decoder_layers)):
        first = _layer(shape, side, 0, quantization)
        found += sum(_layer(shape, side, index, quantization) - first for index in range(layers))
    return found


def pack_parts(
    shape: StudentShape,
    vocabulary: int,
    precision: str = "int8",
    *,
    shortlist: ShortlistSettings | None = None,
    tokenizer_bytes: int | None = None,
    table_bytes: int | None = None,
    quantization: Quantization | None = None,
) -> PackParts:
    """What :func:`estimate_pack_bytes` sums, for any number of layers; those of ``shape`` are not looked at.

    Args:
        shape: dimensions of the student.
        vocabulary: pieces.
        precision: ``int8`` or ``fp32``.
        shortlist: sizes of the pack's shortlist; None for a pack without one.
        tokenizer_bytes: size of tokenizer.json if it is known.
        table_bytes: likewise of the tokenizer's table in native.bin.
    """
    graphs, encoder, decoder = GRAPH_BYTES[precision]
    if tokenizer_bytes is None:
        tokenizer_bytes = _by_pieces(vocabulary, _TOKENIZER_BYTES)
    if precision == "fp32":
        one = StudentShape(**{**vars(shape), "encoder_layers": 1, "decoder_layers": 1})
        two = StudentShape(**{**vars(shape), "encoder_layers": 2, "decoder_layers": 1})
        three = StudentShape(**{**vars(shape), "encoder_layers": 1, "decoder_layers": 2})
        base, more, deeper = (4 * (count_in_matrices(s, vocabulary) + count_in_vectors(s)) for s in (one, two, three))
        positions = 4 * shape.max_position_embeddings * shape.d_model  # int8 packs hold the sinusoids of a few rows
        fixed = base - (more - base) - (deeper - base) + positions + graphs + tokenizer_bytes
        return PackParts(fixed, more - base + encoder, deeper - base + decoder)
    if table_bytes is None:
        table_bytes = _by_pieces(vocabulary, _TABLE_BYTES)
    chosen = quantization or Quantization()
    fixed = _aligned(_table_and_positions(shape, vocabulary, shortlist, chosen.form_of(_TABLE)))
    fixed += tokenizer_bytes + table_bytes
    fixed += _native_beside_table(0, 0) + (SHORTLIST_GRAPH_BYTES if shortlist is not None else 0)
    if not chosen.plain:
        graphs = _compact_graphs(chosen, shape)
        encoder = decoder = 0  # with the layers' matrices
    records = [_native_beside_table(*layers) - _native_beside_table(0, 0) for layers in ((2, 0), (0, 2))]
    return PackParts(
        fixed + graphs,
        _layer(shape, "encoder", 0, chosen) + encoder + records[0] // 2,
        _layer(shape, "decoder", 0, chosen) + decoder + records[1] // 2,
    )


def _compact_graphs(quantization: Quantization, shape: StudentShape) -> int:
    """Bytes of graphs and pack.json that do not grow with the layers."""
    table, cross = quantization.form_of(_TABLE).kind, _form(quantization, shape, "decoder", 0, _CROSS).kind
    some = any(find_form(name).kind == "int4" for name in (quantization.form, *quantization.matrices.values()))
    found = COMPACT_GRAPH_BYTES[0] + _FORM_GRAPH_BYTES[table][3] + _FORM_GRAPH_BYTES[cross][2]
    return found + (_FUNCTION_GRAPH_BYTES if some else 0)


def tokenizer_bytes(tokenizer: Path, pieces: int) -> tuple[int, int]:
    """Bytes of a tokenizer in a pack: of its tokenizer.json, and of its table in native.bin.

    Args:
        tokenizer: a folder with a tokenizer.json in a student's layout.
        pieces: how many it has.

    Raises:
        CheckpointError: there is none, or it will not do.
    """
    from mobilenmt.export.native.tokenizer import NotExpressible, tokenizer_table
    from mobilenmt.export.tokenizer import prepare_tokenizer
    from mobilenmt.runtime.manifest import TokenIds

    pad = pieces - 1
    found = prepare_tokenizer(tokenizer, vocab_size=pieces, target_vocab_size=pieces, eos=0, pad=pad, unk=None)
    try:
        table = tokenizer_table(found.source_json, TokenIds(start=pad, eos=0, pad=pad, unk=found.unk_id), pieces)
    except NotExpressible:
        return len(found.source_json.encode()), 0
    return len(found.source_json.encode()), len(table)


def native_bytes(shape: StudentShape, vocabulary: int, table_bytes: int | None = None) -> int:
    """Bytes of native.bin of an int8 pack, of which ``table_bytes`` are the tokenizer's, if they are known."""
    table = _by_pieces(vocabulary, _TABLE_BYTES) if table_bytes is None else table_bytes
    return _native_beside_table(shape.encoder_layers, shape.decoder_layers) + table


def _native_beside_table(encoder_layers: int, decoder_layers: int) -> int:
    """Bytes of native.bin without its tokenizer: header, the one banned id, a record of 48 bytes a tensor."""
    return 256 + -(-48 * (12 + 6 * encoder_layers + 10 * decoder_layers) // _LINE) * _LINE


def _by_pieces(vocabulary: int, known: tuple[int, ...]) -> int:
    """Between the vocabularies that were measured, and beyond them as the nearest two go on."""
    last = len(_PIECES) - 1
    place = min(max(1, sum(pieces < vocabulary for pieces in _PIECES)), last)
    (x, y), (z, w) = ((_PIECES[i], known[i]) for i in (place - 1, place))
    return max(y, round(y + (w - y) * (vocabulary - x) / (z - x))) if vocabulary > x else y


def _aligned(tensors: Iterable[int]) -> int:
    return sum(-(-size // _LINE) * _LINE for size in tensors)


def _table_and_positions(
    shape: StudentShape, vocabulary: int, shortlist: ShortlistSettings | None, form: Form
) -> list[int]:
    """Bytes of each tensor that is there once: the embedding, which a shortlist takes rows of, and the sinusoids."""
    d = shape.d_model
    found = [8 * d * -(-shape.max_position_embeddings // 16) // 2, 32 * d, 32 * d]
    if shortlist is None and form.kind == "int8":
        return [*found, *_blockwise(vocabulary, d)[:2]]
    found += [vocabulary * d, 4 * vocabulary] if form.kind == "int8" else form.bytes(vocabulary, d)
    if shortlist is None:
        return found
    found += [(2 if vocabulary <= 2**16 else 4) * shortlist.per_token * vocabulary, vocabulary]
    if form.kind == "int8":
        found.append(4 * vocabulary)  # scales of rows as embeddings, beside those as outputs
    if form.kind in ("int8", "int4"):
        found += [4 * vocabulary, 4 * d]  # an offset of outputs, and the norm that makes it needed
    return found


def _layer(shape: StudentShape, side: str, index: int, quantization: Quantization) -> int:
    """Bytes of a layer in weights.bin, and, where they depend on forms, in the graphs."""
    d, inner = shape.d_model, getattr(shape, f"{side}_ffn_dim")
    sizes = {_QKV: (3 * d, d), "self_attn.out_proj": (d, d), "fc1": (inner, d), "fc2": (d, inner)}
    if side == "decoder":
        sizes |= {"encoder_attn.q_proj": (d, d), "encoder_attn.out_proj": (d, d), _CROSS: (2 * d, d)}
    found = [4 * rows for rows, _ in sizes.values()] + [4 * d] * (4 if side == "encoder" else 6)
    graphs = 0 if quantization.plain else COMPACT_GRAPH_BYTES[1 if side == "encoder" else 2]
    for name, (rows, columns) in sizes.items():
        form = _form(quantization, shape, side, index, name)
        blocks = form.kind == "int8" and side == "decoder" and name != _CROSS
        found += _blockwise(rows, columns) if blocks else form.bytes(rows, columns)
        if name != _CROSS:
            graphs += _FORM_GRAPH_BYTES[form.kind][0 if side == "encoder" else 1]
    return _aligned(found) + graphs


def _form(quantization: Quantization, shape: StudentShape, side: str, index: int, name: str) -> Form:
    """Keys and values of the source are one matrix for all layers, by the names of all of them."""
    if name != _CROSS:
        return quantization.form_of(f"model.{side}.layers.{index}.{name}")
    return quantization.form_of(f"model.decoder.layers.0.{name}" + "+k_proj+v_proj" * (shape.decoder_layers - 1))


def _blockwise(rows: int, columns: int) -> list[int]:
    """Where the decoder runs, rows lie in blocks: bytes of values, of a scale for each block, and, where a row is of
    several blocks, of one for the row, for the kernel that takes it so."""
    size = block_size(columns)
    blocks = -(-columns // size)
    return [rows * blocks * size, 4 * rows * blocks, *([4 * rows] if blocks > 1 else [])]
