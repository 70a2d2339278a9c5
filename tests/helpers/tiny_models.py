"""Makes Marian checkpoints with random weights in the layout that transformers and our pipeline read, and as OPUS-MT's
newer ones are: two SentencePiece models (Unigram, nmt_nfkc), a vocabulary each."""

from __future__ import annotations

import io
import json
import random
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mobilenmt.runtime.pack import Pack

_TEXT = (
    "the a one two where is train station house dog cat small big runs sleeps sees and or not here there today der die "
    "das ein zwei wo ist Bahnhof Haus Hund Katze klein gross rennt schläft sieht und oder nicht hier dort heute"
)
WORDS = _TEXT.split()
_ASCII = " ".join(map(chr, range(33, 127)))


def default_signals() -> None:
    """For ``preexec_fn``: a shell starts background jobs with Ctrl-C ignored, and children inherit that."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def make_tokenizer(path: Path) -> int:
    """Write a Unigram tokenizer.json with byte fallback, </s> first and <pad> last; returns the number of pieces."""
    letters = sorted({letter for word in WORDS for letter in word} | set(".,!?0123456789"))
    pieces: list[list[Any]] = [["</s>", 0.0], ["<unk>", 0.0], ["▁", -3.0]]
    pieces += [[f"▁{word}", -4.0 - index / 100] for index, word in enumerate(WORDS)]
    pieces += [[letter, -6.0 - index / 100] for index, letter in enumerate(letters)]
    pieces += [[f"<0x{byte:02X}>", -20.0] for byte in range(256)]
    pieces.append(["<pad>", 0.0])
    special = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    space = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": index, "content": pieces[index][0], **special} for index in (0, 1, len(pieces) - 1)],
        "normalizer": None,
        "pre_tokenizer": space,
        "post_processor": None,
        "decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, space]},
        "model": {"type": "Unigram", "unk_id": 1, "vocab": pieces, "byte_fallback": True},
    }
    path.write_text(json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8")
    return len(pieces)


def make_checkpoint(
    folder: Path,
    *,
    seed: int = 0,
    generation: dict[str, Any] | None = None,
    output_bias: bool = True,
    **config: Any,
) -> Path:
    """Save a ``MarianMTModel`` with random weights, its generation defaults and a tokenizer.

    Keyword arguments replace values of the ``MarianConfig``; ``generation`` those of the ``GenerationConfig``.
    Without ``output_bias`` the one of the output layer is zero, as our students have it.
    """
    import torch
    from transformers import GenerationConfig, MarianConfig, MarianMTModel

    folder.mkdir(parents=True)
    size = make_tokenizer(folder / "tokenizer.json")
    values: dict[str, Any] = {
        "vocab_size": size,
        "d_model": 32,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 4,
        "encoder_ffn_dim": 48,
        "decoder_ffn_dim": 64,
        "activation_function": "relu",
        "max_position_embeddings": 64,
        "scale_embedding": True,
        "pad_token_id": size - 1,
        "eos_token_id": 0,
        "decoder_start_token_id": size - 1,
        "forced_eos_token_id": 0,
        **config,
    }
    torch.manual_seed(seed)
    model = MarianMTModel(MarianConfig(**values)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "embed_positions" in name:
                continue
            if name.endswith("bias"):
                parameter.normal_(0.0, 0.2)
            elif "layer_norm" in name:
                parameter.normal_(1.0, 0.2)
            else:
                parameter.normal_(0.0, 0.3)
        # Without trained weights </s> is as rare as any token; a bias ends outputs at varied lengths.
        if output_bias:
            model.final_logits_bias.normal_(0.0, 0.5)
            model.final_logits_bias[0, 0] = 1.5
    defaults: dict[str, Any] = {
        "pad_token_id": size - 1,
        "eos_token_id": 0,
        "decoder_start_token_id": size - 1,
        "forced_eos_token_id": 0,
        "bad_words_ids": [[size - 1]],
        "max_length": 40,
        **(generation or {}),
    }
    model.generation_config = GenerationConfig(**defaults)
    model.save_pretrained(folder)
    (folder / "tokenizer_config.json").write_text(
        json.dumps(
            {
                "tokenizer_class": "PreTrainedTokenizerFast",
                "eos_token": "</s>",
                "unk_token": "<unk>",
                "pad_token": "<pad>",
            }
        )
    )
    return folder


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
        sentence_iterator=iter([*lines, *[_ASCII] * 3]),
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


def write_calibration(path: Path, lines: int = 40) -> Path:
    """Write lines of words that the tokenizer knows."""
    choose = random.Random(1)
    path.write_text("".join(" ".join(choose.choices(WORDS, k=choose.randint(3, 9))) + "\n" for _ in range(lines)))
    return path


def encode(pack: Pack, texts: Sequence[str]) -> list[list[int]]:
    """Ids of a pack's tokenizer, without the end token."""
    from mobilenmt.runtime.tokenizer import Tokenizer

    manifest = pack.manifest
    tokenizer = Tokenizer(pack.file("tokenizer.json"), manifest.tokens, manifest.model.source_vocab_size)
    return [tokenizer.encode(text) for text in texts]
