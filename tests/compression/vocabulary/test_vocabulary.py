"""A trained vocabulary follows the conventions of Marian checkpoints and is read alike by everything that reads it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from made_up_pairs import make_pairs
from mobilenmt.compression.core.errors import CorpusError, RecipeError, StageError, VocabularyError
from mobilenmt.compression.core.pairs import Pair, PairWriter
from mobilenmt.compression.core.settings import from_mapping
from mobilenmt.compression.vocabulary.sample import draw_sample
from mobilenmt.compression.vocabulary.stage import VocabularySettings, run
from mobilenmt.compression.vocabulary.vocabulary import Vocabulary
from mobilenmt.export.tokenizer import prepare_tokenizer
from mobilenmt.runtime.manifest import TokenIds
from mobilenmt.runtime.tokenizer import Tokenizer

PAIRS = [Pair(*pair, "toy") for pair in make_pairs(1200)]
EXTRA = [
    Pair(
        "Copy {name} to %s at 12:30, it's <b>3.14</b> (or 50%).", "Kopiere {name} um 12:30 nach %s, <b>3,14</b> (50 %)."
    )
] * 60
ODD_LINES = [
    "Grüße aus Köln, 世界!",
    "an emoji 😀 and 👩‍👧 at the end 🎉",
    "tabs, «quotes» – dashes… ½ ﬁne e\u0301 Å",
    "UPPER lower MiXeD ẞß",
    "a  b   c",
    "1234567890 {{0}} %(x)s </b>",
    "</s> is text, <pad> and <unk> too; <0x41><0xE4>",
    "",
]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("corpus") / "pairs.tsv.zst"
    with PairWriter(path) as writer:
        for pair in PAIRS + EXTRA:
            writer.write(pair)
    return path


@pytest.fixture(scope="module")
def folder(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("vocabulary") / "bpe"
    run(VocabularySettings(size=425), made, pairs=corpus, languages=("en", "de"))
    return made


def pieces_of(folder: Path) -> list[str]:
    data = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    vocab: dict[str, int] = data["model"]["vocab"]
    assert sorted(vocab.values()) == list(range(len(vocab)))
    return sorted(vocab, key=vocab.__getitem__)


def test_the_layout_is_marians(folder: Path) -> None:
    pieces = pieces_of(folder)
    assert len(pieces) == len(set(pieces)) == 425
    assert (pieces[0], pieces[1], pieces[-1]) == ("</s>", "<unk>", "<pad>")
    assert pieces[2:258] == [f"<0x{byte:02X}>" for byte in range(256)]
    config = json.loads((folder / "tokenizer_config.json").read_text())
    assert config["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert (config["source_lang"], config["target_lang"]) == ("en", "de")
    data = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    assert data["normalizer"] is None and data["model"]["byte_fallback"] is True
    assert data["pre_tokenizer"]["type"] == "Metaspace"


def test_no_piece_holds_a_digit_or_markup_beside_another_character(folder: Path) -> None:
    for piece in pieces_of(folder)[258:-1]:
        bare = piece.removeprefix("▁")
        assert bare.isdigit() is False or len(piece) == 1, piece
        assert len(bare) < 2 or not any(c.isdigit() or c in "{}<>[]%$#@\\_=&|~^`*" for c in bare), piece
    known = Vocabulary.load(folder)
    assert known.pieces(known.encode("12:30")) == ["▁", "1", "2", ":", "3", "0"]
    spelled = [known.pieces(known.encode(text)) for text in ("{name}", "x{name}y", "({name}).")]
    inside = [found[[piece[-1] for piece in found].index("{") + 1 : found.index("}")] for found in spelled]
    assert inside[0] == inside[1] == inside[2] and "".join(inside[0]) == "name"


def test_training_text_gets_the_ids_of_the_runtime(folder: Path, tmp_path: Path) -> None:
    prepared = prepare_tokenizer(folder, vocab_size=425, target_vocab_size=425, eos=0, pad=424, unk=None)
    (tmp_path / "tokenizer.json").write_text(prepared.source_json, encoding="utf-8")
    tokens = TokenIds(start=424, eos=0, pad=424, unk=prepared.unk_id)
    runtime, known = Tokenizer(tmp_path / "tokenizer.json", tokens, 425), Vocabulary.load(folder)
    lines = [*ODD_LINES, *(text for pair in (PAIRS + EXTRA)[::50] for text in pair[:2]), "a\ttab\nand \x07 more \ud800"]
    for line, ids in zip(lines, known.encode_batch(lines), strict=True):
        assert runtime.encode(line) == ids == known.encode(line)
        assert not {0, 1, 424} & set(ids)
        if line in ODD_LINES:
            assert known.decode(ids) == runtime.decode(ids) == line
    assert (known.size, known.eos, known.unk, known.pad, known.languages) == (425, 0, 1, 424, ("en", "de"))


def test_transformers_and_ctranslate2_read_it_alike(folder: Path, tmp_path: Path) -> None:
    import ctranslate2
    import torch
    from transformers import AutoTokenizer, GenerationConfig, MarianConfig, MarianMTModel

    torch.manual_seed(1)
    sizes: dict[str, Any] = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1}
    sizes |= {
        f"{side}_{what}": 16 if what == "ffn_dim" else 2
        for side in ("encoder", "decoder")
        for what in ("ffn_dim", "attention_heads")
    }
    ids = {"pad_token_id": 424, "eos_token_id": 0, "decoder_start_token_id": 424, "forced_eos_token_id": 0}
    network = MarianMTModel(MarianConfig(vocab_size=425, max_position_embeddings=64, **ids, **sizes)).eval()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "embed_positions" not in name:  # sinusoids, which no checkpoint stores
                parameter.normal_(0.0, 0.4)
        network.model.shared.weight[424] = 0.0
    network.generation_config = GenerationConfig(**ids, bad_words_ids=[[424]], max_length=20, num_beams=1)
    network.save_pretrained(tmp_path / "checkpoint")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "checkpoint" / name).write_bytes((folder / name).read_bytes())

    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "checkpoint")
    known = Vocabulary.load(folder)
    assert (tokenizer.eos_token_id, tokenizer.unk_token_id, tokenizer.pad_token_id) == (0, 1, 424)
    texts = [PAIRS[0].source, "12 ships, {name}", "Köln 世界"]
    for text in texts:
        assert tokenizer(text)["input_ids"] == [*known.encode(text), 0]
        assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) == text

    ctranslate2.converters.TransformersConverter(str(tmp_path / "checkpoint")).convert(str(tmp_path / "converted"))
    translator = ctranslate2.Translator(str(tmp_path / "converted"), intra_threads=1)
    pieces = [tokenizer.convert_ids_to_tokens(tokenizer(text)["input_ids"]) for text in texts]
    answers = translator.translate_batch(pieces, beam_size=1, max_decoding_length=18)
    for text, answer in zip(texts, answers, strict=True):
        with torch.no_grad():
            expected = network.generate(**tokenizer(text, return_tensors="pt"))[0].tolist()
        told = tokenizer.convert_tokens_to_ids(answer.hypotheses[0])
        expected = [i for i in expected if i not in (0, 424)]
        assert told == expected[: len(told)] and len(told) >= min(len(expected), 18)


def test_the_report_measures_what_it_says(folder: Path, corpus: Path) -> None:
    report = json.loads((folder / "report.json").read_text())
    prepared = prepare_tokenizer(folder, vocab_size=425, target_vocab_size=425, eos=0, pad=424, unk=None)
    assert report["bytes"] == len(prepared.source_json.encode())
    assert report["size"] == 425
    assert report["source"]["round_trip"] == report["target"]["round_trip"] == 1.0
    assert 1.0 < report["source"]["tokens_per_word"] < 4.0
    assert report["source"]["characters_in_bytes"] == 0.0


def test_rare_characters_are_spelled_by_bytes_and_counted(tmp_path: Path) -> None:
    from mobilenmt.compression.vocabulary.report import measure

    with PairWriter(tmp_path / "p.tsv.zst") as writer:
        for pair in PAIRS:
            writer.write(pair)
        writer.write(Pair("世界 in it", "界 drin"))
    settings = VocabularySettings(size=460, character_coverage=0.999)
    run(settings, tmp_path / "v", pairs=tmp_path / "p.tsv.zst", languages=("en", "zh"))
    known = Vocabulary.load(tmp_path / "v")
    assert known.pieces(known.encode("界")) == ["▁", "<0xE7>", "<0x95>", "<0x8C>"]
    assert {"ß", "ö", "Ö", "{"} <= set(pieces_of(tmp_path / "v")), "ASCII and both cases have pieces"
    with PairWriter(tmp_path / "q.tsv.zst") as writer:
        writer.write(Pair("世界 abc", "ü"))
    report = measure(tmp_path / "v", tmp_path / "q.tsv.zst")
    assert report["source"]["characters_in_bytes"] == pytest.approx(2 / 6)


def test_two_runs_are_equal_and_the_sample_is_bounded(corpus: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        settings = VocabularySettings(size=420, sample=300)
        run(settings, tmp_path / name, pairs=corpus, languages=("en", "de"), weights={"x": 2.0})
    assert (tmp_path / "a/tokenizer.json").read_bytes() == (tmp_path / "b/tokenizer.json").read_bytes()
    sample = draw_sample(corpus, tmp_path, size=300, weights={}, seed=1)
    assert 220 < len(list(sample.texts())) / 2 < 380
    held_back = {pair[:2] for pair in _pairs(sample.held_back)}
    assert held_back and not held_back & {pair[:2] for pair in _pairs(sample.training)}


def _pairs(path: Path) -> list[Pair]:
    from mobilenmt.compression.core.pairs import read_pairs

    return list(read_pairs(path))


def test_a_tag_of_weight_zero_teaches_nothing(tmp_path: Path) -> None:
    with PairWriter(tmp_path / "p.tsv.zst") as writer:
        for pair in PAIRS:
            writer.write(pair)
            writer.write(pair._replace(source="щука", target="щука", tag="ru"))
    sample = draw_sample(tmp_path / "p.tsv.zst", tmp_path, size=10_000, weights={"r?": 0.0}, seed=1)
    assert "щ" not in sample.alphabet(1.0) and "k" in sample.alphabet(1.0)
    with pytest.raises(CorpusError, match="all pairs have weight 0"):
        draw_sample(tmp_path / "p.tsv.zst", tmp_path, size=10_000, weights={"*": 0.0}, seed=1)


def test_more_pieces_give_fewer_tokens(folder: Path, corpus: Path, tmp_path: Path) -> None:
    small = run(VocabularySettings(size=410), tmp_path / "v", pairs=corpus, languages=("en", "de")).summary
    large = json.loads((folder / "report.json").read_text())
    for side in ("source", "target"):
        assert small[side]["tokens_per_word"] > large[side]["tokens_per_word"]
    assert small["bytes"] < large["bytes"] and small["measured_on_pairs"] == large["measured_on_pairs"] > 20


def test_too_little_text_says_how_many_pieces_it_gives(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(VocabularyError, match=r"the text gives \d+ pieces and size asks for 30000; lower it to \d+"):
        settings = VocabularySettings(size=30000)
        run(settings, tmp_path / "v", pairs=corpus, languages=("en", "de"))
    assert not (tmp_path / "v/tokenizer.json").exists()
    with PairWriter(tmp_path / "empty.tsv.zst"):
        pass
    with pytest.raises(CorpusError, match="no pairs; nothing to learn from"):
        run(VocabularySettings(), tmp_path / "w", pairs=tmp_path / "empty.tsv.zst", languages=("en", "de"))


@pytest.mark.parametrize("name", ["", "tokenizer.json"])
def test_pieces_that_are_there_are_taken_as_they_are(folder: Path, tmp_path: Path, name: str) -> None:
    with PairWriter(tmp_path / "p.tsv.zst") as writer:
        for number, pair in enumerate(PAIRS):
            writer.write(pair._replace(source=f"{pair.source} qqq{number}"))
    settings = VocabularySettings(size=425, initial=folder / name)
    found = run(settings, tmp_path / "v", pairs=tmp_path / "p.tsv.zst", languages=("en", "fr"))
    assert (tmp_path / "v" / "tokenizer.json").read_bytes() == (folder / "tokenizer.json").read_bytes()
    assert Vocabulary.load(tmp_path / "v").languages == ("en", "fr")
    assert found.summary["size"] == 425 and found.summary["measured_on_pairs"] > 20
    again = run(settings, tmp_path / "v", pairs=tmp_path / "p.tsv.zst", languages=("en", "fr"))
    assert again.skipped


def test_pieces_that_do_not_fit_are_refused(folder: Path, corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(VocabularyError, match=r"has 425 pieces, vocabulary\.size is 8,000: set it to theirs"):
        run(VocabularySettings(initial=folder), tmp_path / "v", pairs=corpus, languages=("en", "de"))
    assert not (tmp_path / "v/tokenizer.json").exists()
    with pytest.raises(StageError, match=r"tokenizer\.json \(initial\) is not there"):
        run(VocabularySettings(initial=tmp_path), tmp_path / "w", pairs=corpus, languages=("en", "de"))


def test_a_vocabulary_made_before_there_was_initial_is_not_of_other_settings(corpus: Path, tmp_path: Path) -> None:
    run(VocabularySettings(size=425), tmp_path / "v", pairs=corpus, languages=("en", "de"))
    assert "initial" not in json.loads((tmp_path / "v" / "manifest.json").read_text())["compared"]


def spoil_pad(data: dict[str, Any]) -> None:
    vocab = data["model"]["vocab"]
    vocab["zzz"] = len(vocab)
    data["added_tokens"] = [token for token in data["added_tokens"] if token["content"] != "<pad>"]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [(spoil_pad, "id 425 is 'zzz'; Marian checkpoints have <pad> there"), (None, "cannot be read as a tokenizer")],
)
def test_other_tokenizers_are_refused(folder: Path, tmp_path: Path, spoil: Any, message: str) -> None:
    data = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    if spoil is None:
        data = {"model": 3}
    else:
        spoil(data)
    (tmp_path / "tokenizer.json").write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(VocabularyError, match=message):
        Vocabulary.load(tmp_path)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"size": 300}, "vocabulary.size: expected 400 to"),
        ({"model": "unigram"}, "vocabulary.model: "),
        ({"sample": 0}, "vocabulary.sample: expected at least 1 pair"),
        ({"character_coverage": 0.5}, r"vocabulary.character_coverage: expected 0\.9 to 1"),
        ({"max_piece_length": 1}, "vocabulary.max_piece_length: expected 2 to 100"),
        ({"sizes": 8000}, "vocabulary.sizes: no such setting"),
    ],
)
def test_settings_are_checked(raw: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        from_mapping(VocabularySettings, raw, "vocabulary")
