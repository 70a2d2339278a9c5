"""Makes a checkpoint as OPUS-MT's newer ones are: two SentencePiece models (Unigram, nmt_nfkc), a vocabulary each."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ASCII = " ".join(map(chr, range(33, 127)))


def make_opus(folder: Path, source: Sequence[str], target: Sequence[str]) -> Path:
    """Save a ``MarianMTModel`` with random weights and separate vocabularies, learned of lines; each has all ASCII."""
    import torch
    from transformers import GenerationConfig, MarianConfig, MarianMTModel

    folder.mkdir(parents=True)
    pieces = _train(folder / "source.spm", source, 400), _train(folder / "target.spm", target, 350)
    vocabularies = [{p: i for i, p in enumerate(["</s>", "<unk>", *sorted(set(of))])} for of in pieces]
    pad = max(map(len, vocabularies))  # Marian takes the special ids from the source's: the same in both
    for name, vocabulary in zip(("vocab.json", "target_vocab.json"), vocabularies, strict=True):
        (folder / name).write_text(json.dumps({**vocabulary, "<pad>": pad}), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps({"separate_vocabs": True, "model_max_length": 512}))
    special: dict[str, Any] = {"pad_token_id": pad, "eos_token_id": 0, "decoder_start_token_id": pad}
    config = MarianConfig(
        vocab_size=pad + 1,
        decoder_vocab_size=pad + 1,
        share_encoder_decoder_embeddings=False,
        d_model=32,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        activation_function="swish",
        max_position_embeddings=128,
        forced_eos_token_id=0,
        **special,
    )
    torch.manual_seed(0)
    model = MarianMTModel(config).eval()
    with torch.no_grad():
        model.final_logits_bias[0, 0] = 1.0
    model.generation_config = GenerationConfig(bad_words_ids=[[pad]], forced_eos_token_id=0, **special)
    model.save_pretrained(folder)
    return folder


def _train(path: Path, lines: Sequence[str], size: int) -> list[str]:
    import sentencepiece

    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([*lines, *[ASCII] * 3]),
        model_writer=out,
        vocab_size=size,
        character_coverage=1.0,
        bos_id=-1,
        hard_vocab_limit=False,
        minloglevel=2,
        num_threads=1,
    )
    path.write_bytes(out.getvalue())
    model = sentencepiece.SentencePieceProcessor(model_file=str(path))
    return [
        model.id_to_piece(i) for i in range(model.get_piece_size()) if not (model.is_control(i) or model.is_unknown(i))
    ]
