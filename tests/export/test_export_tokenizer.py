"""A checkpoint's tokenizer becomes a pack's: same ids for ordinary text, no way to spell a special token."""

from __future__ import annotations

import json
import random
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, processors, trainers

from mobilenmt.export.tokenizer import PreparedTokenizer, prepare_tokenizer
from mobilenmt.runtime.errors import CheckpointError
from mobilenmt.runtime.manifest import TokenIds
from mobilenmt.runtime.tokenizer import Tokenizer
from tiny_models import ENGLISH, GERMAN, SOURCE_LINES, make_opus_tokenizer, sentences, train_sentencepiece

Json = dict[str, Any]

ODD_LINES = [
    "Grüße aus Köln, 世界!",
    "an emoji 😀 and 👩\u200d👧 at the end 🎉",
    "tabs, «quotes» – dashes… ½ ﬁne",
    "</s> is text, <pad> and <unk> too; <0x41><0xE4>",
    "UPPER lower MiXeD",
    "a  b   c",
    "e\u0301 combining, Ελληνικά, عربى",
    "",
]


# --- tokenizer.json ------------------------------------------------------------------------------------------------


def unigram_json(*, byte_fallback: bool = True) -> Json:
    """A trained Unigram tokenizer in Marian's layout: </s> 0, <unk> 1, ..., bytes, <pad> last."""
    trained = tokenizers.Tokenizer(models.Unigram())
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=250, special_tokens=["</s>", "<unk>"], unk_token="<unk>", show_progress=False
    )
    trained.train_from_iterator(sentences(ENGLISH, 1) + sentences(GERMAN, 2), trainer)
    data: Json = json.loads(trained.to_str())
    vocab = data["model"]["vocab"]
    known = {piece for piece, _ in vocab}
    vocab += [[c, -15.0] for c in "<0x123456789ABCDEF>/s" if c not in known]
    lowest = min(score for _, score in vocab)
    vocab += [[f"<0x{b:02X}>", lowest - 10] for b in range(256 if byte_fallback else 0)]
    vocab.append(["<pad>", 0.0])
    data["model"] |= {"unk_id": 1, "byte_fallback": byte_fallback}
    tokenizer = tokenizers.Tokenizer.from_str(json.dumps(data))
    tokenizer.add_special_tokens(["</s>", "<unk>", "<pad>"])
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 0)])
    tokenizer.enable_truncation(5)
    tokenizer.enable_padding(length=12)
    result: Json = json.loads(tokenizer.to_str())
    return result


def bpe_json() -> Json:
    """A trained BPE tokenizer with byte fallback, in the same layout."""
    special = ["</s>", "<unk>"]
    trained = tokenizers.Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=[*special, *(f"<0x{b:02X}>" for b in range(256))],
        show_progress=False,
    )
    trained.train_from_iterator(sentences(ENGLISH, 1) + sentences(GERMAN, 2), trainer)
    data: Json = json.loads(trained.to_str())
    data["model"]["vocab"]["<pad>"] = len(data["model"]["vocab"])
    data["added_tokens"] = []
    tokenizer = tokenizers.Tokenizer.from_str(json.dumps(data))
    tokenizer.add_special_tokens([*special, "<pad>"])
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
    result: Json = json.loads(tokenizer.to_str())
    return result


def vocab_size(data: Json) -> int:
    return len(data["model"]["vocab"])


def prepare(folder: Path, data: Json, **changes: Any) -> PreparedTokenizer:
    (folder / "tokenizer.json").write_text(json.dumps(data), encoding="utf-8")
    size = vocab_size(data)
    arguments: dict[str, Any] = {
        "vocab_size": size,
        "target_vocab_size": size,
        "eos": 0,
        "pad": size - 1,
        "unk": None,
    } | changes
    return prepare_tokenizer(folder, **arguments)


def runtime(folder: Path, prepared: PreparedTokenizer, size: int, *, pad: int) -> Tokenizer:
    """The pack's tokenizer, as the runtime opens it."""
    paths = {"tokenizer.packed.json": prepared.source_json, "tokenizer.target.json": prepared.target_json}
    for name, text in paths.items():
        if text is not None:
            (folder / name).write_text(text, encoding="utf-8")
    target = None if prepared.target_json is None else folder / "tokenizer.target.json"
    tokens = TokenIds(start=pad, eos=0, pad=pad, unk=prepared.unk_id)
    return Tokenizer(folder / "tokenizer.packed.json", tokens, size, target)


def plain(data: Json) -> tokenizers.Tokenizer:
    """The original tokenizer, encoding everything."""
    original = tokenizers.Tokenizer.from_str(json.dumps(data))
    original.no_truncation()
    original.no_padding()
    return original


@pytest.mark.parametrize("build", [unigram_json, bpe_json])
def test_ordinary_text_keeps_its_ids(tmp_path: Path, build: Callable[[], Json]) -> None:
    data = build()
    size = vocab_size(data)
    tokenizer, original = runtime(tmp_path, prepare(tmp_path, data), size, pad=size - 1), plain(data)
    odd = [line for line in ODD_LINES if "<" not in line]
    for line in sentences(ENGLISH, 3) + sentences(GERMAN, 4) + odd:
        ids = original.encode(line, add_special_tokens=False).ids
        assert tokenizer.encode(line) == ids
        assert tokenizer.decode(ids) == original.decode(ids, skip_special_tokens=False) == line


@pytest.mark.parametrize(("build", "spells_bytes"), [(unigram_json, True), (bpe_json, False)])
def test_special_and_byte_pieces_cannot_be_spelled(
    tmp_path: Path, build: Callable[[], Json], spells_bytes: bool
) -> None:
    """Though the checkpoint's own tokenizer reads them so: special pieces in any case, byte pieces as Unigram."""
    data = build()
    size = vocab_size(data)
    tokenizer = runtime(tmp_path, prepare(tmp_path, data), size, pad=size - 1)
    special, of_bytes = ("</s>", "<unk>", "<pad>", "a</s>b </s>"), ("<0x41>", "a <0xE4><0xB8><0x96>")
    for text in special + of_bytes:
        differs = plain(data).encode(text, add_special_tokens=False).ids != tokenizer.encode(text)
        assert differs == (text in special or spells_bytes)
        assert not {0, 1, size - 1} & set(tokenizer.encode(text))
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.pieces([0, 1, size - 1]) == ["</s>", "<unk>", "<pad>"]


def test_result_is_compact_and_holds_nothing_the_engine_does(tmp_path: Path) -> None:
    prepared = prepare(tmp_path, unigram_json())
    data = json.loads(prepared.source_json)
    assert prepared.source_json == json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    assert [data[key] for key in ("added_tokens", "post_processor", "truncation", "padding")] == [[], None, None, None]
    assert (prepared.unk_id, data["model"]["unk_id"]) == (1, 1)
    assert [piece for piece, _ in data["model"]["vocab"] if piece[0] == "\uffff"] == [
        "\uffff</s>",
        "\uffff<unk>",
        "\uffff<pad>",
    ]
    assert prepared.target_json is None


def test_preparing_a_prepared_tokenizer_changes_nothing_but_byte_scores(tmp_path: Path) -> None:
    once = prepare(tmp_path, bpe_json())
    assert prepare(tmp_path, json.loads(once.source_json)) == once


def test_byte_scores_stay_where_lowering_them_could_change_a_segmentation(tmp_path: Path) -> None:
    data = unigram_json()
    data["model"]["vocab"].insert(2, ["aØ", -5.0])  # Ø is no piece: it is unknown on some paths only
    data["added_tokens"][-1]["id"] += 1
    made = json.loads(prepare(tmp_path, data).source_json)
    assert [s for _, s in made["model"]["vocab"]] == [s for _, s in data["model"]["vocab"]]


def test_other_added_tokens_keep_working(tmp_path: Path) -> None:
    data = unigram_json()
    original = tokenizers.Tokenizer.from_str(json.dumps(data))
    original.add_tokens([">>de<<"])
    original.add_special_tokens(["<ph>", ">>fr<<", "<mask>"])
    data = json.loads(original.to_str())
    size = vocab_size(data)
    with pytest.raises(CheckpointError, match=f"ids up to {size + 3}.*ends at {size - 1}"):
        prepare(tmp_path, data)
    # <mask> is a control piece behind a gap of tokens that Unigram cannot hold: its own place is needed
    data["added_tokens"] = [t for t in data["added_tokens"] if t["content"] != "<mask>"]
    tokenizer = runtime(tmp_path, prepare(tmp_path, data, vocab_size=size + 3), size + 3, pad=size - 1)
    for text in (">>de<< the house", ">>fr<< the", "the <ph> house"):
        assert tokenizer.encode(text) == plain(data).encode(text, add_special_tokens=False).ids
    assert tokenizer.encode(">>fr<<the")[0] == size + 2
    assert "<ph>" in tokenizer.decode(tokenizer.encode("the <ph> house"))


def test_control_pieces_beside_eos_are_hidden_too(tmp_path: Path) -> None:
    data = bpe_json()
    size = vocab_size(data)
    original = tokenizers.Tokenizer.from_str(json.dumps(data))
    original.add_special_tokens(["<s>", "[CLS]"])
    data = json.loads(original.to_str())
    (tmp_path / "tokenizer_config.json").write_text('{"cls_token": {"content": "[CLS]"}}')
    tokenizer = runtime(tmp_path, prepare(tmp_path, data, vocab_size=size + 2), size + 2, pad=size - 1)
    assert not {size, size + 1} & set(tokenizer.encode("<s> [CLS]"))
    assert tokenizer.pieces([size, size + 1]) == ["<s>", "[CLS]"]
    assert tokenizer.decode([size, size + 1, *tokenizer.encode("the")]) == "the"


def test_special_tokens_that_are_only_added_tokens_get_a_place(tmp_path: Path) -> None:
    data = bpe_json()
    pad = data["model"]["vocab"].pop("<pad>")
    prepared = prepare(tmp_path, data, vocab_size=pad + 1, pad=pad)
    assert json.loads(prepared.source_json)["model"]["vocab"]["\uffff<pad>"] == pad


def test_bpe_merges_that_spell_special_pieces_go_and_dropout_goes(tmp_path: Path) -> None:
    data = bpe_json()
    model = data["model"]
    size = vocab_size(data)
    model["vocab"] |= {"</": size, "s>": size + 1, "</s": size + 2}
    model["merges"] += [["<", "/"], ["s", ">"], ["</", "s>"]]
    model["dropout"] = 0.5
    prepared = prepare(tmp_path, data, pad=size - 1)
    made = json.loads(prepared.source_json)["model"]
    assert made["dropout"] is None
    assert made["merges"] == [m for m in model["merges"] if m != ["</", "s>"]]
    tokenizer = runtime(tmp_path, prepared, size + 3, pad=size - 1)
    assert tokenizer.pieces(tokenizer.encode("</s>"))[-2:] == ["</", "s>"]


def test_vocabulary_smaller_than_the_models_is_fine(tmp_path: Path) -> None:
    data = unigram_json()
    assert prepare(tmp_path, data, vocab_size=9999, target_vocab_size=9999, pad=vocab_size(data) - 1).unk_id == 1


def duplicate(data: Json) -> None:
    data["model"]["vocab"].insert(5, data["model"]["vocab"][9])


def wordpiece(data: Json) -> None:
    data["model"]["type"] = "WordPiece"


def without_model(data: Json) -> None:
    del data["model"]


def without_unk(data: Json) -> None:
    data["model"]["unk_id"] = None


def text_vocab(data: Json) -> None:
    data["model"]["vocab"] = "abc"


def infinite_score(data: Json) -> None:
    data["model"]["vocab"][3][1] = float("-inf")


def wrong_added_id(data: Json) -> None:
    data["added_tokens"][0]["id"] = 7


def broken_normalizer(data: Json) -> None:
    data["normalizer"] = {"type": "Nonsense"}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (duplicate, r"pieces listed twice.*\['"),
        (wordpiece, "type WordPiece; supported are Unigram and BPE"),
        (without_model, "no model section"),
        (without_unk, "a Unigram model needs unk_id"),
        (text_vocab, "no Unigram vocabulary"),
        (infinite_score, "no Unigram vocabulary"),
        (wrong_added_id, "added token '</s>' has id 7"),
        (broken_normalizer, "tokenizers refuses it"),
    ],
)
def test_unusable_tokenizer_json_is_refused(tmp_path: Path, spoil: Callable[[Json], None], message: str) -> None:
    data = unigram_json()
    size = vocab_size(data)
    spoil(data)
    (tmp_path / "tokenizer.json").write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(CheckpointError, match=message):
        prepare_tokenizer(tmp_path, vocab_size=size + 9, target_vocab_size=size + 9, eos=0, pad=size - 1, unk=None)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vocab_size": 100}, "ids up to .*ends at 99"),
        ({"eos": 5000}, "no piece with id 5000, which is the model's eos"),
        ({"pad": 5000}, "no piece with id 5000, which is the model's pad"),
        ({"unk": 3}, "unk has id 1 in the tokenizer and 3"),
    ],
)
def test_ids_that_do_not_fit_the_model_are_refused(tmp_path: Path, changes: Json, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        prepare(tmp_path, unigram_json(), **changes)


@pytest.mark.parametrize("text", ["", "[1]", "{", '{"model":{"type":"BPE","vocab":{"a":0,"b":1,"a":2}}}', "[" * 99999])
def test_tokenizer_json_that_is_no_json_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "tokenizer.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: (cannot be read|is not a JSON object|listed twice)"):
        prepare_tokenizer(tmp_path, vocab_size=9, target_vocab_size=9, eos=0, pad=1, unk=None)


def test_no_tokenizer_at_all_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"neither tokenizer\.json nor .*source\.spm, target\.spm, vocab\.json"):
        prepare_tokenizer(tmp_path, vocab_size=9, target_vocab_size=9, eos=0, pad=1, unk=None)


# --- OPUS-MT's SentencePiece files ---------------------------------------------------------------------------------


def marian(folder: Path) -> Any:
    from transformers import MarianTokenizer

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it recommends sacremoses, which plays no part in encoding
        return MarianTokenizer.from_pretrained(str(folder))


SPM_LINES = [
    *sentences(ENGLISH, 5, 100),
    *sentences(GERMAN, 6, 30),
    "Where is the grün house?",
    "ü ß x 世界 y 😀 z 👩\u200d👧.",
    "unknown世inside and世 at the end世",
    "  outer   and  inner spaces   ",
    "\u3000wide\u00a0spaces\u2003of\u200ball kinds\u2028here.",
    "ﬁne ½ … “quotes” ＡＢＣ ㍿ e\u0301 a\u0308",
    "▁literal ▁ block ▁▁",
    "UPPER CASE; e-mail@host.example/x?y=1&z=2 #tag",
    "",
    " ",
    "世界",
]
LITERAL_LINES = ["</s> <pad> <unk> <s>", "x </s>", "<0x41>"]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"byte_fallback": True, "vocab_size": 380},
        {"normalization_rule_name": "identity"},
        {"normalization_rule_name": "nmt_nfkc_cf", "remove_extra_whitespaces": False},
        {"add_dummy_prefix": False},
        {"user_defined_symbols": ["house", "@"]},
        {"split_by_whitespace": False},
    ],
    ids=lambda options: "-".join(options) or "plain",
)
def test_spm_gives_the_ids_and_words_of_marian_tokenizer(tmp_path: Path, options: Json) -> None:
    pad = make_opus_tokenizer(tmp_path, **options)
    prepared = prepare_tokenizer(tmp_path, vocab_size=pad + 1, target_vocab_size=pad + 1, eos=0, pad=pad, unk=None)
    tokenizer, reference = runtime(tmp_path, prepared, pad + 1, pad=pad), marian(tmp_path)
    unknown = 0
    for line in SPM_LINES:
        expected = reference(line)["input_ids"]
        assert [*tokenizer.encode(line), 0] == expected, line
        unknown += expected.count(1)
        with reference_as_target(reference):
            target = reference(line)["input_ids"]
        assert tokenizer.decode(target) == reference.decode(target, skip_special_tokens=True), line
    assert unknown > 10, "the lines hold unknown characters and pieces that vocab.json lacks"
    choose = random.Random(3)
    for _ in range(50):
        ids = choose.choices([i for i in range(2, pad) if "<0x" not in reference.decoder[i]], k=9)
        assert tokenizer.decode(ids) == reference.decode(ids, skip_special_tokens=True)
    assert tokenizer.decode([]) == tokenizer.decode([reference.encoder["▁"]] * 3) == ""
    for line in LITERAL_LINES:
        assert not {0, pad} & set(tokenizer.encode(line))


def reference_as_target(reference: Any) -> Any:
    """Within this context MarianTokenizer encodes with target.spm."""
    from contextlib import contextmanager

    @contextmanager
    def switched() -> Any:
        reference._switch_to_target_mode()
        try:
            yield
        finally:
            reference._switch_to_input_mode()

    return switched()


def test_spm_language_codes_steer_from_the_start_of_the_text(tmp_path: Path) -> None:
    pad = make_opus_tokenizer(tmp_path)
    prepared = prepare_tokenizer(tmp_path, vocab_size=pad + 1, target_vocab_size=pad + 1, eos=0, pad=pad, unk=1)
    tokenizer, reference = runtime(tmp_path, prepared, pad + 1, pad=pad), marian(tmp_path)
    for line in (">>deu<< the house", ">>nds<<the house", ">>deu<<", ">>deu<<  a  b"):
        assert [*tokenizer.encode(line), 0] == reference(line)["input_ids"]
    assert tokenizer.encode(">>deu<< the")[0] == 2


def test_spm_pieces_of_the_target_alone_are_not_read_but_shown(tmp_path: Path) -> None:
    pad = make_opus_tokenizer(tmp_path)
    prepared = prepare_tokenizer(tmp_path, vocab_size=pad + 1, target_vocab_size=pad + 1, eos=0, pad=pad, unk=None)
    tokenizer, reference = runtime(tmp_path, prepared, pad + 1, pad=pad), marian(tmp_path)
    readable = set(train_sentencepiece(tmp_path / "again.spm", SOURCE_LINES, vocab_size=220))
    only_out = [p for p in reference.encoder if p not in readable and len(p) > 1 and p[0] not in "<>"]
    assert len(only_out) > 20
    for piece in only_out:
        i = reference.encoder[piece]
        assert i not in tokenizer.encode(piece.replace("▁", " "))
        assert tokenizer.pieces([i]) == [piece]
        assert tokenizer.decode([i]) == piece.replace("▁", "")
    # A character unknown to source.spm is looked up in vocab.json, as MarianTokenizer does.
    # (That looks up whole runs of unknown characters, so a run gives one unk there, and here what is known of it.)
    for line in ("x ß x", "Straße", "grün"):
        assert [*tokenizer.encode(line), 0] == reference(line)["input_ids"]
        assert 1 not in tokenizer.encode(line)
    assert tokenizer.pieces(tokenizer.encode("xßüx"))[1:] == ["x", "ß", "ü", "x"]
    assert reference("xßüx")["input_ids"][2] == 1


def test_spm_with_separate_vocabularies(tmp_path: Path) -> None:
    pad = make_opus_tokenizer(tmp_path, separate=True)
    sizes = {"vocab_size": pad + 1, "target_vocab_size": pad + 1}
    prepared = prepare_tokenizer(tmp_path, **sizes, eos=0, pad=pad, unk=None)
    assert prepared.target_json is not None
    tokenizer, reference = runtime(tmp_path, prepared, pad + 1, pad=pad), marian(tmp_path)
    for line in SPM_LINES:
        assert [*tokenizer.encode(line), 0] == reference(line)["input_ids"], line
        with reference_as_target(reference):
            target = reference(line)["input_ids"]
        assert tokenizer.decode(target) == reference.decode(target, skip_special_tokens=True), line
    (tmp_path / "target_vocab.json").unlink()
    with pytest.raises(CheckpointError, match=r"target_vocab\.json: no such file"):
        prepare_tokenizer(tmp_path, **sizes, eos=0, pad=pad, unk=None)


def test_spm_is_preferred_to_tokenizer_json_only_for_separate_vocabularies(tmp_path: Path) -> None:
    make_opus_tokenizer(tmp_path)
    data = unigram_json()
    assert json.loads(prepare(tmp_path, data).source_json)["model"]["vocab"][9][0] == data["model"]["vocab"][9][0]


def test_spm_model_of_another_type_is_refused(tmp_path: Path) -> None:
    pad = make_opus_tokenizer(tmp_path)
    train_sentencepiece(tmp_path / "source.spm", sentences(ENGLISH, 1), model_type="bpe")
    with pytest.raises(CheckpointError, match=r"source\.spm: a SentencePiece model of type bpe; supported is unigram"):
        prepare_tokenizer(tmp_path, vocab_size=pad + 1, target_vocab_size=pad + 1, eos=0, pad=pad, unk=None)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("source.spm", b"\xff\xff nonsense", r"source\.spm: cannot be read as a SentencePiece model"),
        ("target.spm", b"", r"target\.spm: cannot be read as a SentencePiece model: it has no pieces"),
        ("vocab.json", b'{"</s>":0,"<unk>":1,"a":2,"a":3}', r"vocab\.json: listed twice: \['a'\]"),
        ("vocab.json", b'{"</s>":0,"<unk>":1,"a":2,"b":2}', r"pieces with the same id: 'a' and 'b' \(2\)"),
        ("vocab.json", b'{"</s>":0,"<unk>":"1"}', r"vocab\.json: is not a vocabulary"),
        ("vocab.json", b'{"</s>":0,"<unk>":1,"<pad>":99999}', r"ids up to 99999.*ends at"),
        ("vocab.json", b'{"</s>":0,"<pad>":2}', r"vocab\.json: has no '<unk>'"),
    ],
)
def test_spm_files_that_are_no_such_are_refused(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    pad = make_opus_tokenizer(tmp_path)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        prepare_tokenizer(tmp_path, vocab_size=pad + 1, target_vocab_size=pad + 1, eos=0, pad=pad, unk=None)
