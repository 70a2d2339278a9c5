"""How many bytes the pack of a student takes, from its shape alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mobilenmt.compression.train.size import count_in_matrices, count_in_vectors
from mobilenmt.compression.train.student import StudentShape

if TYPE_CHECKING:
    from mobilenmt.compression.pack.shortlist import ShortlistSettings

PIECE_BYTES = 29
"""Of tokenizer.json a piece of a BPE vocabulary takes about this much, its merge included (8,000 pieces: 228 kB)."""
BYTE_PIECES_BYTES = 4_000
"""What the 256 pieces of single bytes take."""
NATIVE_PIECE_BYTES, NATIVE_BYTES = 28.75, 4_300
"""Of native.bin a piece takes so much, and what lies beside pieces and records."""
GRAPH_BYTES = {"int8": (44_900, 14_800, 31_900), "fp32": (34_600, 12_300, 22_800)}
"""The five graphs and pack.json take about this much, and as much more for each encoder and each decoder layer."""
SHORTLIST_GRAPH_BYTES = 5_100
"""What a shortlist adds to the graphs."""


def estimate_pack_bytes(
    shape: StudentShape,
    vocabulary: int,
    precision: str = "int8",
    *,
    shortlist: ShortlistSettings | None = None,
    tokenizer_bytes: int | None = None,
    native_bytes: int | None = None,
) -> int:
    """Bytes of all files of a pack, within a few percent.

    INT8: a byte for each element of a matrix, and fp32 scales for its rows; vectors are fp32.

    Args:
        shape: dimensions of the student.
        vocabulary: pieces, ``<pad>`` included.
        precision: ``int8`` or ``fp32``.
        shortlist: sizes of the pack's shortlist; None for a pack without one.
        tokenizer_bytes: size of tokenizer.json if it is known.
        native_bytes: likewise of native.bin.
    """
    if precision == "fp32":
        # int8 packs hold the sinusoids of a few rows, these all of them
        weights = 4 * (count_in_matrices(shape, vocabulary) + shape.max_position_embeddings * shape.d_model)
    else:
        weights = _int8_matrices(shape, vocabulary, chosen=shortlist is not None)
    fixed, encoder, decoder = GRAPH_BYTES[precision]
    graphs = fixed + encoder * shape.encoder_layers + decoder * shape.decoder_layers
    if shortlist is not None:
        graphs += SHORTLIST_GRAPH_BYTES
        weights += vocabulary * ((2 if vocabulary <= 2**16 else 4) * shortlist.per_token + 1)
    if tokenizer_bytes is None:
        tokenizer_bytes = BYTE_PIECES_BYTES + PIECE_BYTES * max(0, vocabulary - 256)
    native = native_bytes or 0
    if precision == "int8" and native_bytes is None:
        records = 12 + 6 * shape.encoder_layers + 10 * shape.decoder_layers
        native = 48 * (records + 4) + NATIVE_BYTES + int(NATIVE_PIECE_BYTES * max(0, vocabulary - 256))
    return weights + 4 * count_in_vectors(shape) + graphs + tokenizer_bytes + native


def _int8_matrices(shape: StudentShape, vocabulary: int, *, chosen: bool) -> int:
    """Bytes of values and scales, and of the sinusoids. Where the decoder runs, rows lie in blocks; ``chosen``: a
    shortlist takes rows of the table, which has two scales and an offset for each then."""
    d, inner = shape.d_model, shape.decoder_ffn_dim
    encoder = _wide(4 * d + shape.encoder_ffn_dim, d) + _wide(d, shape.encoder_ffn_dim)
    decoder = _wide(2 * d, d) + _blockwise(6 * d + inner, d) + _blockwise(d, inner)
    table = vocabulary * (d + 12) if chosen else _blockwise(vocabulary, d, both=False)
    positions = 4 * d * (16 + -(-shape.max_position_embeddings // 16))
    return table + positions + encoder * shape.encoder_layers + decoder * shape.decoder_layers


def _wide(rows: int, columns: int) -> int:
    return rows * (columns + 4)


def _blockwise(rows: int, columns: int, *, both: bool = True) -> int:
    """A scale for each block of a row, and with ``both`` also one for the row, for the kernel that takes it so."""
    from mobilenmt.export.precision import block_size

    size = block_size(columns)
    blocks = -(-columns // size)
    scales = blocks + 1 if both and blocks > 1 else blocks
    return rows * (blocks * size + 4 * scales)
