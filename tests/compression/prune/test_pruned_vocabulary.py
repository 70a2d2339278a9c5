"""Another vocabulary: pieces that stay keep their logits, new ones start from the old spelling of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tokenizers
import torch

from mobilenmt.compression.prune.network import BIAS, EMBEDDING
from mobilenmt.compression.prune.pieces import Pieces
from mobilenmt.compression.prune.vocabulary import keep_rows, move, same_pieces, smaller_tokenizer, used_pieces
from mobilenmt.compression.vocabulary.training import train_tokenizer
from mobilenmt.compression.vocabulary.vocabulary import Vocabulary
from mobilenmt.export.checkpoint import MarianConfig, load_checkpoint
from training_data import opened, prunable, toy_pairs


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prunable(tmp_path_factory.mktemp("model") / "checkpoint")


def bpe(folder: Path, size: int = 400) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    texts = [text for pair in toy_pairs(2000) for text in pair]
    data = train_tokenizer(texts, sorted({c for text in texts for c in text} - {" "}), size=size, max_piece_length=12)
    (folder / "tokenizer.json").write_text(json.dumps(data), encoding="utf-8")
    return folder


def test_moving_to_the_same_tokenizer_changes_nothing(folder: Path) -> None:
    network, pieces, _ = opened(folder)
    moved, told = move(network, pieces, Vocabulary.load(folder))
    assert told == {"same": pieces.size - 1, "spelled": 0, "guessed": 0}
    torch.testing.assert_close(moved.weights[EMBEDDING], network.weights[EMBEDDING])
    torch.testing.assert_close(moved.weights[BIAS][0, :-1], network.weights[BIAS][0, :-1])
    assert same_pieces(folder, folder)


def test_new_pieces_are_the_mean_of_their_old_spelling_where_they_stand(folder: Path, tmp_path: Path) -> None:
    network, pieces, _ = opened(folder)
    vocabulary = Vocabulary.load(bpe(tmp_path / "new"))
    assert not same_pieces(folder, tmp_path / "new")
    moved, told = move(network, pieces, vocabulary)
    assert (moved.config.vocab_size, moved.config.pad_token_id, moved.config.eos_token_id) == (400, 399, 0)
    assert sum(told.values()) == 399 and told["spelled"] > 10
    old, new = network.weights[EMBEDDING], moved.weights[EMBEDDING]
    names = vocabulary.pieces(range(vocabulary.size))
    whole = names.index("▁train")
    torch.testing.assert_close(new[whole], old[pieces.encode(["train"])[0][0]])
    part = names.index("▁gr")  # not whole: a word mark and letters, weighted by characters
    spelled = [next(i for i in range(pieces.size) if pieces.name(i) == name) for name in ("▁", "g", "r")]
    torch.testing.assert_close(new[part], old[spelled].mean(0))
    inside = next(i for i, name in enumerate(names) if len(name) == 2 and name.isalpha() and name not in "▁")
    letters = [next(i for i in range(pieces.size) if pieces.name(i) == letter) for letter in names[inside]]
    torch.testing.assert_close(new[inside], old[letters].mean(0))  # letters of a word, not words of one letter
    byte = names.index("<0x41>")
    torch.testing.assert_close(new[byte], old[next(i for i in range(pieces.size) if pieces.name(i) == "<0x41>")])
    assert not new[-1].any()
    assert torch.equal(new[0], old[0]) and torch.equal(new[1], old[1])


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_unused_pieces_go_and_the_rest_is_as_before(folder: Path, tmp_path: Path, kind: str) -> None:
    """Text that was counted is cut as before, and logits of pieces that stay are what they were."""
    if kind == "bpe":
        folder = prunable(tmp_path / "model")
        network, pieces, _ = opened(folder)
        vocabulary = Vocabulary.load(bpe(tmp_path / "new"))
        network, _ = move(network, pieces, vocabulary)
        bpe(folder)
        pieces = Pieces(folder, network.config)
    else:
        network, pieces, _ = opened(folder)
    texts = [(source.replace("train", "dog"), target) for source, target in toy_pairs(200)]
    kept = used_pieces(pieces, texts)
    assert kept[0] == pieces.eos and kept[-1] == pieces.pad and len(kept) < pieces.size
    assert not any(pieces.name(index) == "▁train" for index in kept)
    small = keep_rows(network, kept)
    (tmp_path / "small").mkdir()
    (tmp_path / "small" / "tokenizer.json").write_text(smaller_tokenizer(pieces, kept), encoding="utf-8")
    after = Pieces(tmp_path / "small", small.config)
    assert tokenizers.Tokenizer.from_file(str(tmp_path / "small" / "tokenizer.json")).get_vocab_size() == len(kept)
    for side in (0, 1):
        sentences = [pair[side] for pair in texts]
        for before, now in zip(pieces.encode(sentences), after.encode(sentences), strict=True):
            assert [kept[index] for index in now] == before
    assert after.unk not in after.encode(["the train"])[0]  # other text is still spelled
    states = torch.randn(3, network.config.d_model)
    torch.testing.assert_close(small.logits(states)[:, :-1], network.logits(states)[:, kept][:, :-1])


def test_opus_mts_two_tokenizers_spell_pieces_too(tmp_path: Path) -> None:
    """source.spm and target.spm: each side is read by its own, and a new piece is the mean of both spellings."""
    sentencepiece = pytest.importorskip("sentencepiece")
    folder = tmp_path / "opus"
    folder.mkdir()
    pairs = toy_pairs(2000)
    names: dict[str, int] = {"</s>": 0, "<unk>": 1}
    for side, name in enumerate(("source", "target")):
        text = tmp_path / f"{name}.txt"
        text.write_text("\n".join(pair[side] for pair in pairs), encoding="utf-8")
        sentencepiece.SentencePieceTrainer.train(
            input=str(text), model_prefix=str(folder / name), vocab_size=38, model_type="unigram", minloglevel=2
        )
        (folder / f"{name}.model").rename(folder / f"{name}.spm")
        model = sentencepiece.SentencePieceProcessor(model_file=str(folder / f"{name}.spm"))
        for index in range(3, model.get_piece_size()):
            names.setdefault(model.id_to_piece(index), len(names))
    names["<pad>"] = len(names)
    (folder / "vocab.json").write_text(json.dumps(names), encoding="utf-8")
    raw = load_checkpoint(prunable(tmp_path / "any")).config
    values = {**vars(raw), "vocab_size": len(names), "decoder_vocab_size": len(names)}
    values |= {"pad_token_id": len(names) - 1, "decoder_start_token_id": len(names) - 1}
    pieces = Pieces(folder, MarianConfig(**values))
    for side, name in enumerate(("source", "target")):
        model = sentencepiece.SentencePieceProcessor(model_file=str(folder / f"{name}.spm"))
        sentences = [pair[side] for pair in pairs[:50]]
        wanted = [[names[piece] for piece in model.encode(text, out_type=str)] for text in sentences]
        assert pieces.encode(sentences, target=bool(side)) == wanted
    assert len(pieces.spell("▁train")) == 2
