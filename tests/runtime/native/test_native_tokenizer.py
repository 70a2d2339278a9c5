"""The C core's tokenizer gives the ids and the text that Hugging Face's tokenizers gives, and withstands any table."""

from __future__ import annotations

import io
import json
import random
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mobilenmt.export.native.tokenizer import NotExpressible, tokenizer_table
from mobilenmt.export.tokenizer import prepare_tokenizer
from mobilenmt.runtime.manifest import TokenIds
from mobilenmt.runtime.tokenizer import Tokenizer
from native import TOKENIZER_SOURCES, NativeError, NativeTokenizer, compile_c, compiler
from places import ROOT
from tiny_models import WORDS, make_tokenizer

pytestmark = pytest.mark.skipif(compiler() is None, reason="there is no C compiler here")

METASPACE = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
BYTES_DECODER = {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, METASPACE]}
PLAIN = {
    "version": "1.0",
    "truncation": None,
    "padding": None,
    "added_tokens": [],
    "normalizer": None,
    "pre_tokenizer": METASPACE,
    "post_processor": None,
    "decoder": METASPACE,
}
TEXT = [" ".join(random.Random(i).choices(WORDS, k=12)) + "." for i in range(400)]


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("native") / "tokenizer.so"
    return compile_c(out, *TOKENIZER_SOURCES, flags=("-O2", "-shared", "-fPIC"))


@dataclass
class Both:
    """One tokenizer.json, read by Hugging Face's library and as a table by the C core."""

    wanted: Tokenizer
    found: NativeTokenizer
    table: bytes
    size: int

    def compare(self, texts: Iterator[str] | list[str]) -> None:
        for text in texts:
            ids = self.wanted.encode(text)
            assert self.found.encode(text) == ids, ascii(text)
            assert self.found.decode(ids) == self.wanted.decode(ids), ids

    def compare_ids(self, seed: int, count: int) -> None:
        choose = random.Random(seed)
        for _ in range(count):
            ids = [choose.randrange(choose.choice((self.size + 3, 262))) for _ in range(choose.randrange(24))]
            assert self.found.decode(ids) == self.wanted.decode(ids), ids


MakeBoth = Callable[..., Both]


@pytest.fixture
def both(library: Path, tmp_path: Path) -> MakeBoth:
    def make(content: dict[str, Any] | str, size: int, source_size: int | None = None, unk: int | None = 1) -> Both:
        path = tmp_path / "tokenizer.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        tokens = TokenIds(start=size - 1, eos=0, pad=size - 1, unk=unk)
        table = tokenizer_table(path.read_text(encoding="utf-8"), tokens, source_size or size)
        wanted = Tokenizer(path, tokens, source_size or size)
        return Both(wanted, NativeTokenizer(library, table), table, size)

    return make


def random_texts(seed: int, count: int, more: str = "") -> Iterator[str]:
    """Text of all planes, with much of what an alphabet, a normalizer or a decoder treats apart."""
    choose = random.Random(seed)
    pools: list[Callable[[], str]] = [
        lambda: choose.choice(WORDS),
        lambda: " " * choose.choice((1, 1, 2, 5)),
        lambda: chr(choose.randrange(0x80)),
        lambda: chr(choose.randrange(0x800)),
        lambda: chr(choose.randrange(0x300, 0x370)),
        lambda: chr(choose.randrange(0x11000)),
        lambda: chr(choose.randrange(0x110000)),
        lambda: choose.choice("▁▁�\u2581\u200d\u200b\ufe0f\ufdd0\uffff\ufffe</s><unk>\t\n\r\0\x85ﬁ™ℹ©Ａｶﾞ²" + more),
        lambda: choose.choice(("</s>", "<0x41>", "<unk>", ">>deu<<", "👩\u200d👧", "क्षि", "각", "각", "🇩🇪")),
    ]
    for _ in range(count):
        some = choose.sample(pools, 3)
        text = "".join(choose.choice(some)() for _ in range(choose.randrange(30)))
        yield "".join("\ufffd" if "\ud800" <= letter <= "\udfff" else letter for letter in text)  # UTF-8 has none


def bpe(*, byte_fallback: bool, fuse_unk: bool = False, ignore_merges: bool = False) -> tuple[dict[str, Any], int]:
    """A byte pair encoding trained on a few sentences; unk is 1, <pad> last."""
    import tokenizers
    from tokenizers import models, pre_tokenizers, trainers

    trained = tokenizers.Tokenizer(models.BPE(unk_token="\uffff<unk>"))
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["\uffff</s>", "\uffff<unk>", *(f"<0x{byte:02X}>" for byte in range(256) if byte_fallback)]
    trainer = trainers.BpeTrainer(vocab_size=500, special_tokens=special, show_progress=False)
    trained.train_from_iterator(TEXT, trainer)
    model = json.loads(trained.to_str())["model"]
    model["vocab"]["\uffff<pad>"] = len(model["vocab"])
    model |= {"byte_fallback": byte_fallback, "fuse_unk": fuse_unk, "ignore_merges": ignore_merges}
    decoder = BYTES_DECODER if byte_fallback else METASPACE
    return PLAIN | {"model": model, "decoder": decoder}, len(model["vocab"])


def unigram(*, byte_fallback: bool) -> tuple[dict[str, Any], int]:
    letters = sorted({letter for word in WORDS for letter in word} | set(".,"))
    vocab: list[list[Any]] = [["\uffff</s>", 0.0], ["\uffff<unk>", 0.0], ["▁", -3.25]]
    vocab += [[f"▁{word}", -4.0 - index / 7] for index, word in enumerate(WORDS)]
    vocab += [[letter, -6.0 - index / 9] for index, letter in enumerate(letters)]
    vocab += [["世界", -9.0], ["xyz", -20.0], ["aa", -12.0], ["aaa", -18.0]]  # of characters that are no pieces, too
    vocab += [[f"<0x{byte:02X}>", -300.0] for byte in range(256) if byte_fallback]
    vocab.append(["\uffff<pad>", 0.0])
    model = {"type": "Unigram", "unk_id": 1, "byte_fallback": byte_fallback, "vocab": vocab}
    decoder = BYTES_DECODER if byte_fallback else METASPACE
    return PLAIN | {"model": model, "decoder": decoder}, len(vocab)


def sentencepiece(folder: Path, *, byte_fallback: bool, **options: Any) -> tuple[str, int]:
    """An OPUS-MT tokenizer: SentencePiece models and vocab.json, as the exporter converts them."""
    spm = pytest.importorskip("sentencepiece")
    folder.mkdir()
    written = io.BytesIO()
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT), model_writer=written, vocab_size=380 if byte_fallback else 110,
        byte_fallback=byte_fallback, hard_vocab_limit=False, minloglevel=3, **options,
    )  # fmt: skip
    for name in ("source.spm", "target.spm"):
        (folder / name).write_bytes(written.getvalue())
    model = spm.SentencePieceProcessor(model_proto=written.getvalue())
    names = [model.id_to_piece(i) for i in range(model.get_piece_size() - 5)]
    pieces = dict.fromkeys(["</s>", "<unk>", *names, ">>deu<<", ">>fr<<", "▁Ω", "<pad>"])
    (folder / "vocab.json").write_text(json.dumps({piece: i for i, piece in enumerate(pieces)}))
    (folder / "tokenizer_config.json").write_text("{}")
    size = len(pieces)
    made = prepare_tokenizer(folder, vocab_size=size, target_vocab_size=size, eos=0, pad=size - 1, unk=1)
    return made.source_json, size


def test_shipped_tokenizer(both: MakeBoth) -> None:
    pair = both((ROOT / "models" / "en-de" / "tokenizer.json").read_text(encoding="utf-8"), 8000)
    pair.compare(TEXT)
    pair.compare(random_texts(1, 3000))
    pair.compare_ids(2, 1000)
    for i in range(8003):
        assert (pair.found.piece(i) or "\ufffd") == pair.wanted.pieces([i])[0]


@pytest.mark.parametrize("ignore_merges", [False, True])
@pytest.mark.parametrize("fuse_unk", [False, True])
@pytest.mark.parametrize("byte_fallback", [False, True])
def test_bpe(both: MakeBoth, byte_fallback: bool, fuse_unk: bool, ignore_merges: bool) -> None:
    content, size = bpe(byte_fallback=byte_fallback, fuse_unk=fuse_unk, ignore_merges=ignore_merges)
    pair = both(content, size)
    pair.compare(TEXT[:50])
    pair.compare(random_texts(3, 1000))
    pair.compare_ids(4, 500)


def test_bpe_without_unk_and_with_bytes_missing(both: MakeBoth) -> None:
    """An unknown character is dropped, and waits behind bytes that come after it."""
    content, size = bpe(byte_fallback=True)
    vocab = content["model"]["vocab"]
    for byte in (0xC3, 0xE4):
        vocab[f"\uffff{byte}"] = vocab.pop(f"<0x{byte:02X}>")
    both(content, size).compare(random_texts(5, 500, "öäößé世"))
    content["model"]["unk_token"] = None
    both(content, size, unk=None).compare(random_texts(6, 500, "öäößé世"))


@pytest.mark.parametrize("byte_fallback", [False, True])
def test_unigram(both: MakeBoth, byte_fallback: bool) -> None:
    content, size = unigram(byte_fallback=byte_fallback)
    pair = both(content, size)
    pair.compare(["世", "世界", "a世界b世", "xyz xy yz", "aaaaa aaaa", *TEXT[:50]])
    pair.compare(random_texts(7, 2000, "世界xyz"))
    pair.compare_ids(8, 500)


@pytest.mark.parametrize("scheme", ["always", "first", "never"])
@pytest.mark.parametrize("split", [False, True])
def test_metaspace(both: MakeBoth, scheme: str, split: bool) -> None:
    content, size = unigram(byte_fallback=True)
    space = METASPACE | {"prepend_scheme": scheme, "split": split}
    decoder = {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, space]}
    code = {"id": 5, "content": content["model"]["vocab"][5][0]} | dict.fromkeys(
        ("single_word", "lstrip", "rstrip", "normalized", "special"), False
    )
    both(content | {"pre_tokenizer": space, "decoder": decoder, "added_tokens": [code]}, size).compare(
        [f"a{code['content']}a", *random_texts(9, 500, "▁▁  ")]
    )


def test_white_space_split_replacing_stripping_and_a_prefix(both: MakeBoth) -> None:
    content, size = unigram(byte_fallback=True)
    steps = [
        {"type": "Replace", "pattern": {"String": "ab"}, "content": "the"},
        {"type": "Strip", "strip_left": True, "strip_right": True},
        {"type": "Prepend", "prepend": "▁"},
        {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
    ]
    decoder = {
        "type": "Sequence",
        "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"},
            {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0},
        ],
    }
    texts = ["  ababa b  ", "\u3000ab\u00a0", "   ", "", *random_texts(10, 1000, "ab\u3000\u2028")]
    llama = content | {
        "normalizer": {"type": "Sequence", "normalizers": steps}, "pre_tokenizer": None, "decoder": decoder,
    }  # fmt: skip
    pair = both(llama, size)
    pair.compare(texts)
    pair.compare_ids(11, 500)
    words = {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, METASPACE]}
    both(content | {"pre_tokenizer": words}, size).compare(texts)


@pytest.mark.parametrize(
    ("byte_fallback", "options"),
    [
        (False, {"normalization_rule_name": "nmt_nfkc"}),
        (True, {"normalization_rule_name": "nfkc_cf"}),
        (True, {"normalization_rule_name": "identity"}),
        (False, {"add_dummy_prefix": False, "remove_extra_whitespaces": False}),
    ],
)
def test_sentencepiece(both: MakeBoth, tmp_path: Path, byte_fallback: bool, options: dict[str, Any]) -> None:
    content, size = sentencepiece(tmp_path / "opus", byte_fallback=byte_fallback, **options)
    pair = both(content, size)
    pair.compare(TEXT[:50])
    pair.compare(random_texts(12, 5000, "Ω  ▁"))
    pair.compare_ids(13, 1000)


def test_character_map_in_every_grapheme(both: MakeBoth, tmp_path: Path) -> None:
    """Every character next to ones that the map replaces, alone and with marks: graphemes end where they end there."""
    content, size = sentencepiece(tmp_path / "opus", byte_fallback=True, normalization_rule_name="nmt_nfkc")
    pair = both(content, size)
    codes = [*range(0xA0, 0x3100), *range(0x3101, 0xD800, 29), *range(0xE000, 0x20000, 5), *range(0xE0000, 0xE0200)]
    for i in range(0, len(codes), 32):
        some = map(chr, codes[i : i + 32])
        near = (f"ﬁ{x} {x}\u0301 {x}\u0340\u0301 ™\u200d{x}\u0301\u0340 \u0600{x}\u0301" for x in some)
        pair.compare([" ".join(near)])
    choose = random.Random(14)
    marks = "́̀̈́؀࣢­​‌"
    hangul = "\uac01\u1100\u1161\u11a8\uac00"
    pools = ["\u0915\u094d\u0937\u0958\u093c\u093e", "™ℹ㊗👩❤\u200d\ufe0f", hangul, "🇩🇪🇫", marks, "aeﬁＡ "]
    for _ in range(300):
        two = "".join(choose.sample(pools, 2))
        pair.compare([" ".join("".join(choose.choices(two, k=choose.randrange(1, 10))) for _ in range(20))])


def test_ids_the_model_does_not_know(both: MakeBoth) -> None:
    content, size = unigram(byte_fallback=True)
    both(content, size, source_size=20).compare(TEXT[:20])
    both(content, size, source_size=20, unk=None).compare(TEXT[:20])


def test_bytes_that_are_no_text(both: MakeBoth) -> None:
    """As Python's own decoding with U+FFFD has it."""
    content, size = bpe(byte_fallback=True)
    pair = both(content, size)
    choose = random.Random(15)
    some = bytes.fromhex("41 80 bf c0 c3 e0 e2 96 81 ed a0 ef bf f0 90 9f f4 8f f8 ff")
    for _ in range(3000):
        data = bytes(choose.choice(some) for _ in range(choose.randrange(9)))
        assert pair.found.encode(data) == pair.wanted.encode(data.decode("utf-8", "replace")), data


@pytest.mark.parametrize("kind", [bpe, unigram])
def test_long_words_take_no_long_time(both: MakeBoth, kind: Callable[..., tuple[dict[str, Any], int]]) -> None:
    content, size = kind(byte_fallback=True)
    pair = both(content, size)
    choose = random.Random(16)
    letters = "".join(choose.choice("ehinrst") for _ in range(20_000))
    for text in ("a" * 20_000, letters, "世" * 20_000, "e\u0301" * 10_000, "▁" * 20_000):
        pair.compare([text])
        best = min(_seconds(lambda text=text: pair.found.encode(text)) for _ in range(3))  # type: ignore[misc]
        assert best < 0.05  # 1 to 15 ms on an ordinary processor; a quadratic search takes seconds


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def test_memory_has_a_limit(library: Path) -> None:
    content, size = bpe(byte_fallback=True)
    table = tokenizer_table(json.dumps(content), TokenIds(size - 1, 0, size - 1, 1), size)
    small = NativeTokenizer(library, table, limit=4096)
    assert small.encode("the house")
    with pytest.raises(NativeError) as caught:
        small.encode("a" * 10_000)
    assert caught.value.status == 3


def test_a_table_of_the_target_decodes_and_encodes_nothing(library: Path) -> None:
    content, size = bpe(byte_fallback=True)
    tokens = TokenIds(size - 1, 0, size - 1, 1)
    whole = NativeTokenizer(library, tokenizer_table(json.dumps(content), tokens, size))
    target = NativeTokenizer(library, tokenizer_table(json.dumps(content), tokens, size, encodes=False))
    assert target.decode(whole.encode("the house")) == "the house"
    with pytest.raises(NativeError):
        target.encode("the house")


@pytest.mark.parametrize(
    "change",
    [
        {"normalizer": {"type": "NFKC"}},
        {"normalizer": {"type": "Replace", "pattern": {"Regex": "a+"}, "content": "b"}},
        {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}},
        {"decoder": None},
        {"decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True}},
    ],
)
def test_what_a_table_cannot_hold_is_said(change: dict[str, Any]) -> None:
    content, size = unigram(byte_fallback=True)
    with pytest.raises(NotExpressible):
        tokenizer_table(json.dumps(content | change), TokenIds(size - 1, 0, size - 1, 1), size)


@pytest.fixture(scope="session")
def damage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("native") / "damage"
    sources = (Path(__file__).with_name("damage.c"), *TOKENIZER_SOURCES)
    try:
        return compile_c(out, *sources, flags=("-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"))
    except AssertionError:
        pytest.skip("the C compiler has no sanitizers")


@pytest.mark.parametrize("kind", ["bpe", "unigram", "sentencepiece"])
def test_no_damaged_table_reads_outside_itself(kind: str, damage: Path, tmp_path: Path) -> None:
    if kind == "sentencepiece":
        text, size = sentencepiece(tmp_path / "opus", byte_fallback=False, normalization_rule_name="nmt_nfkc")
    else:
        content, size = (bpe if kind == "bpe" else unigram)(byte_fallback=True)
        text = json.dumps(content)
    table, texts = tmp_path / "table", tmp_path / "texts"
    table.write_bytes(tokenizer_table(text, TokenIds(size - 1, 0, size - 1, 1), size))
    texts.write_bytes("the station ﬁe\u0301™ >>deu<< 世界 x\n  Bahnhof▁ \n".encode() + b"\xf0\x9f\xe2\x96 \xff\n")
    skipped = table.stat().st_size // 4 // 4000 + 1
    result = subprocess.run(
        [damage, table, texts, str(skipped)], capture_output=True, text=True, check=False, timeout=300
    )
    assert result.returncode == 0, result.stderr[:3000]
    opened, refused, encoded = map(int, result.stdout.split())
    assert min(opened, refused, encoded) > 30


def test_make_tokenizer_of_the_tests(both: MakeBoth, tmp_path: Path) -> None:
    """The tokenizer of the checkpoints made up for tests, hardened."""
    size = make_tokenizer(tmp_path / "tokenizer.json")
    made = prepare_tokenizer(tmp_path, vocab_size=size, target_vocab_size=size, eos=0, pad=size - 1, unk=1)
    both(made.source_json, size).compare(random_texts(17, 500))
