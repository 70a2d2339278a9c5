"""Makes Marian checkpoints with random weights in the layout that transformers and our pipeline read, and in OPUS-MT's:
two SentencePiece models (Unigram, nmt_nfkc), with one vocabulary or, as the newer ones, with one each."""

from __future__ import annotations

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
ASCII = " ".join(map(chr, range(33, 127)))

ENGLISH = "the a house station train where is are we you they go went small green old new city street river and or with"
GERMAN = (
    "das ein Haus Bahnhof Zug wo ist sind wir ihr sie gehen gingen klein grün alt neu Stadt Straße Fluß und öder mit"
)


def sentences(words: str, seed: int, count: int = 300) -> list[str]:
    choose = random.Random(seed)
    vocabulary = [*words.split(), *(f"{a}{b}" for a in words.split()[:8] for b in words.split()[8:14])]

    def sentence() -> str:
        core = " ".join(choose.choices(vocabulary, k=choose.randint(2, 9)))
        return core.capitalize() + choose.choice([".", "!", "?", ", 1234567890.", " (ABCDEF) <x>", " - @ /" + "'s;:"])

    return [sentence() for _ in range(count)]


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


def train_sentencepiece(path: Path, lines: Sequence[str], **options: Any) -> list[str]:
    """Train a SentencePiece model as OPUS-MT does (nmt_nfkc, Unigram); gives its pieces."""
    import sentencepiece

    arguments = {
        "vocab_size": 120,
        "hard_vocab_limit": False,
        "minloglevel": 2,
        "num_threads": 1,
        "bos_id": -1,
    } | options
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_prefix=str(path.with_suffix("")), **arguments
    )
    path.with_suffix(".model").rename(path)
    model = sentencepiece.SentencePieceProcessor(model_file=str(path))
    return [model.id_to_piece(i) for i in range(model.get_piece_size())]


# All of ASCII is known to the source, as in real models: what it does not know are umlauts, other scripts and emoji.
SOURCE_LINES = [*sentences(ENGLISH, 1), ASCII]
TARGET_LINES = sentences(GERMAN, 2)


def vocabulary(pieces: list[str], extra: list[str]) -> dict[str, int]:
    """vocab.json in Marian's order: </s> 0, <unk> 1, pieces, <pad> last."""
    names = ["</s>", "<unk>", *dict.fromkeys([*extra, *sorted(set(pieces) - {"</s>", "<unk>"})]), "<pad>"]
    return {name: i for i, name in enumerate(names)}


def make_opus_tokenizer(
    folder: Path,
    *,
    separate: bool = False,
    lines: tuple[Sequence[str], Sequence[str]] = (SOURCE_LINES, TARGET_LINES),
    whole: bool = False,
    **options: Any,
) -> int:
    """Make an OPUS-MT tokenizer folder, its models trained on ``lines`` of the source and of the target.

    Unless it is to be ``whole``, every ninth piece of the source is left out of vocab.json. Gives the pad id.
    """
    source = train_sentencepiece(folder / "source.spm", lines[0], **({"vocab_size": 220} | options))
    target = train_sentencepiece(folder / "target.spm", lines[1], **options)
    kept = [piece for n, piece in enumerate(source) if whole or n % 9 or len(piece) < 3]
    shared = vocabulary(kept if separate else kept + target, [] if separate else [">>deu<<", ">>nds<<"])
    (folder / "vocab.json").write_text(json.dumps(shared))
    config = {"separate_vocabs": separate, "model_max_length": 512}
    if separate:
        # Marian takes the special ids from the source vocabulary, so pad stands at the same id in both.
        own = {piece: i for i, piece in enumerate(["</s>", "<unk>", *sorted(set(target) - {"</s>", "<unk>"})])}
        assert len(own) < len(shared)
        own["<pad>"] = shared["<pad>"]
        (folder / "target_vocab.json").write_text(json.dumps(own))
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return shared["<pad>"]


def make_opus_checkpoint(
    folder: Path, *, separate: bool = False, tokenizer: dict[str, Any] | None = None, **config: Any
) -> Path:
    """A checkpoint as :func:`make_checkpoint` makes it, with OPUS-MT's tokenizer files and its sizes in their stead.

    ``tokenizer`` is what :func:`make_opus_tokenizer` takes.
    """
    files = folder.with_name(f"{folder.name}.spm")
    files.mkdir()
    pad = make_opus_tokenizer(files, separate=separate, **(tokenizer or {}))
    ids = {"pad_token_id": pad, "decoder_start_token_id": pad}
    shared = {"share_encoder_decoder_embeddings": not separate}
    values = {"vocab_size": pad + 1, "max_position_embeddings": 128, **ids, **shared, **config}
    make_checkpoint(folder, generation={**ids, "bad_words_ids": [[pad]], "max_length": 64}, **values)
    (folder / "tokenizer.json").unlink()
    for path in files.iterdir():
        path.replace(folder / path.name)
    files.rmdir()
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings |= {"tokenizer_class": "MarianTokenizer", "source_lang": "eng", "target_lang": "deu"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


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
