"""The runtime's tokenizer: text that cannot be tricked, ids that cannot go wrong, files that cannot crash it."""

from __future__ import annotations

import json
import random
import sys
import threading
import time
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from mobilenmt.runtime.errors import PackError
from mobilenmt.runtime.manifest import TokenIds
from mobilenmt.runtime.tokenizer import Tokenizer, clean

METASPACE = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
WORDS = ["▁the", "▁house", "s", "▁is"]
EOS, UNK, PAD = 0, 1, 3 + len(WORDS) + 94 + 256


TINY = b'{"type":"BPE","vocab":{"a":0},"merges":[]}'


def unigram(words: list[str], *, byte_fallback: bool = True) -> dict[str, Any]:
    """A pack's tokenizer.json: special pieces behind U+FFFF, words, ASCII characters, bytes, pad last."""
    vocab: list[list[Any]] = [["\uffff</s>", 0.0], ["\uffff<unk>", 0.0], ["▁", -3.0]]
    vocab += [[word, -4.0] for word in words]
    vocab += [[chr(c), -8.0] for c in range(33, 127)]
    if byte_fallback:
        vocab += [[f"<0x{b:02X}>", -500.0] for b in range(256)]
    vocab.append(["\uffff<pad>", 0.0])
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": METASPACE,
        "post_processor": None,
        "decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, METASPACE]},
        "model": {"type": "Unigram", "unk_id": UNK, "byte_fallback": byte_fallback, "vocab": vocab},
    }


def make(folder: Path, data: dict[str, Any], size: int | None = None) -> Tokenizer:
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(data), encoding="utf-8")
    vocab = len(data["model"]["vocab"])
    return Tokenizer(path, TokenIds(start=vocab - 1, eos=EOS, pad=vocab - 1, unk=UNK), size or vocab)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return make(tmp_path_factory.mktemp("tokenizer"), unigram(WORDS))


def test_clean_changes_exactly_controls_surrogates_and_noncharacters() -> None:
    for code in range(sys.maxunicode + 1):
        character = chr(code)
        category = unicodedata.category(character)
        if category == "Cs" or code & 0xFFFE == 0xFFFE or 0xFDD0 <= code <= 0xFDEF:
            expected = "\ufffd"
        elif category == "Cc" and character not in "\t\n\r":
            expected = " "
        else:
            expected = character
        assert clean(character) == expected, hex(code)


def test_clean_joins_surrogate_pairs_and_keeps_ordinary_text() -> None:
    assert clean("\ud83d\ude00 \ude00\ud83d a\udcff") == "😀 \ufffd\ufffd a\ufffd"
    for text in ("", "plain", "Grüße, 世界 👩\u200d👧 e\u0301\u00a0\u2028\ufeff", "\tindent\r\nnext"):
        assert clean(text) == text


def test_words_bytes_and_pieces(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("the houses 世😀")
    assert tokenizer.pieces(ids)[:4] == ["▁the", "▁house", "s", "▁"]
    assert tokenizer.pieces(ids)[4:] == [f"<0x{b:02X}>" for b in "世😀".encode()]
    assert tokenizer.decode(ids) == "the houses 世😀"
    assert EOS not in ids


@pytest.mark.parametrize(
    "text",
    ["</s>", "a </s> b", "<pad><unk>", "\uffff</s>", "x\uffff<pad>y", "\ufffe</s>", "<0x41>", "a<0xE4>", "\ud800</s>"],
)
def test_special_pieces_in_text_are_text(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert not {EOS, UNK, PAD} & set(ids)
    assert tokenizer.decode(ids) == clean(text)


def test_random_strings_come_back(tokenizer: Tokenizer) -> None:
    choose = random.Random(7)
    for _ in range(300):
        text = "".join(chr(choose.choice([choose.randrange(0x250), choose.randrange(0x11000)])) for _ in range(20))
        text = clean(text).replace("▁", " ")
        core = " ".join(text.split(" ")).replace("\t", " ").replace("\n", " ").replace("\r", " ")
        decoded = tokenizer.decode(tokenizer.encode(text))
        # One leading space is Metaspace's own; outer whitespace is kept by the segmenter, not by the tokenizer.
        assert decoded == core.removeprefix(" ")


def test_inner_spaces_are_kept_and_layout_counts_as_space(tokenizer: Tokenizer) -> None:
    assert tokenizer.decode(tokenizer.encode("the  house")) == "the  house"
    assert tokenizer.encode("the\thouse\nis\rhouse\0s") == tokenizer.encode("the house is house s")
    assert tokenizer.encode("") == []


def test_decode_skips_special_ids_and_ids_out_of_range(tokenizer: Tokenizer) -> None:
    the, house = tokenizer.encode("the house")
    assert tokenizer.decode([PAD, the, EOS, UNK, -1, PAD + 1, 2**31, 2**32, 2**70, house, PAD]) == "the house"
    assert tokenizer.pieces([the, EOS, -1, 2**70]) == ["▁the", "</s>", "\ufffd", "\ufffd"]
    assert tokenizer.pieces([PAD, PAD + 1]) == ["<pad>", "\ufffd"]
    assert tokenizer.decode([]) == ""


def test_hidden_pieces_are_never_shown(tmp_path: Path) -> None:
    data = unigram(["\uffff<s>", "▁a"])
    tokenizer = make(tmp_path, data)
    assert tokenizer.decode([3, 4]) == "a"


def test_bytes_that_make_no_character_are_left_out(tokenizer: Tokenizer) -> None:
    the, first, second = tokenizer.encode("the ü")[0], *tokenizer.encode("ü")[1:]
    assert tokenizer.decode([first, second]) == "ü"
    assert tokenizer.decode([first]) == tokenizer.decode([second, second]) == ""
    assert tokenizer.decode([first, first, second, first, the]) == "ü the"
    assert tokenizer.decode([second, the]) == "the"


def test_random_bytes_are_what_python_makes_of_them(tokenizer: Tokenizer) -> None:
    choose = random.Random(3)
    ids = {piece: i for i in range(PAD) if (piece := tokenizer.pieces([i])[0]).startswith("<0x")}
    some = bytes.fromhex("41 80 bf c0 c3 e0 e2 96 81 ed a0 ef bf f0 90 9f f4 8f f8 ff")
    for _ in range(2000):
        data = bytes(choose.choice(some) for _ in range(choose.randrange(1, 9)))
        expected = data.decode("utf-8", "ignore").replace("▁", " ").removeprefix(" ")
        assert tokenizer.decode([ids[f"<0x{byte:02X}>"] for byte in data]) == expected


def test_it_knows_what_needs_no_bytes(tokenizer: Tokenizer) -> None:
    assert tokenizer.knows("the houses {}~ 09")
    for text in ("ü", "→", "你", "\0", "\ud800", "\ufffe", "the ü"):
        assert not tokenizer.knows(text)


def test_pieces_beyond_the_models_vocabulary_are_unk(tmp_path: Path) -> None:
    data = unigram(["▁a"], byte_fallback=False)
    size = len(data["model"]["vocab"])
    data["model"]["vocab"] += [["▁extra", -4.0], ["▁more", -4.0]]
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(data), encoding="utf-8")
    tokens = TokenIds(start=size - 1, eos=EOS, pad=size - 1, unk=UNK)
    assert Tokenizer(path, tokens, size).encode("a extra more a") == [3, UNK, UNK, 3]
    without_unk = TokenIds(start=size - 1, eos=EOS, pad=size - 1, unk=None)
    assert Tokenizer(path, without_unk, size).encode("a extra more a") == [3, 3]


def test_target_vocabulary_of_its_own(tmp_path: Path) -> None:
    target = tmp_path / "tokenizer.target.json"
    model = {"type": "BPE", "vocab": {"\uffff</s>": 0, "\uffff<unk>": 1, "▁das": 2, "▁Haus": 3}, "merges": []}
    target.write_text(json.dumps({"version": "1.0", "added_tokens": [], "decoder": METASPACE, "model": model}))
    source = tmp_path / "tokenizer.json"
    source.write_text(json.dumps(unigram(["▁the", "▁house"])))
    tokenizer = Tokenizer(source, TokenIds(start=0, eos=0, pad=0, unk=1), 400, target)
    assert tokenizer.encode("the house") == [3, 4]
    assert tokenizer.decode([2, 3, 4, 0]) == "das Haus"
    assert tokenizer.pieces([2, 3]) == ["▁das", "▁Haus"]


def test_truncation_and_padding_in_the_file_have_no_effect(tmp_path: Path) -> None:
    data = unigram(["▁a"])
    data["truncation"] = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}
    data["padding"] = {
        "strategy": {"Fixed": 50},
        "direction": "Right",
        "pad_to_multiple_of": None,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": "x",
    }
    assert make(tmp_path, data).encode("a a a") == [3, 3, 3]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not json",
        b"[]",
        b"{}",
        b"\xff\xfe\x00",
        b'{"version":"1.0","model":' + b"[" * 100_000,
        b'{"version":"9.0","model":{"type":"Unigram","vocab":[["a",0]],"unk_id":0}}',
        b'{"version":"1.0","added_tokens":[],"model":{"type":"Unigram","vocab":[["a",0]],"unk_id":7}}',
        b'{"version":"1.0","added_tokens":[],"model":{"type":"Unigram","vocab":[],"unk_id":0}}',
        b'{"version":"1.0","added_tokens":[],"model":{"type":"BPE","vocab":{"a":0},"merges":["a b"]}}',
        b'{"version":"1.0","normalizer":{"type":"Precompiled","precompiled_charsmap":"AAAA"},"model":%s}' % TINY,
        b'{"version":"1.0","pre_tokenizer":{"type":"Split","pattern":{"Regex":"("}},"model":%s}' % TINY,
    ],
)
def test_bad_file_is_a_pack_error_that_names_it(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content)
    with pytest.raises(PackError, match=r"tokenizer\.json: cannot be read as a tokenizer"):
        Tokenizer(path, TokenIds(start=0, eos=0, pad=0, unk=None), 1)


def test_missing_file_is_a_pack_error(tmp_path: Path) -> None:
    with pytest.raises(PackError, match=r"absent\.json.*no such file"):
        Tokenizer(tmp_path / "absent.json", TokenIds(start=0, eos=0, pad=0, unk=None), 1)


def test_failure_while_encoding_is_a_pack_error(tmp_path: Path) -> None:
    data = unigram([], byte_fallback=False)
    data["model"]["unk_id"] = None
    with pytest.raises(PackError, match="fails on 'ü'"):
        make(tmp_path, data).encode("ü")


@pytest.mark.parametrize("text", ["a" * 100_000, "the " * 25_000, "ü世" * 25_000, " " * 100_000, "\0\uffff" * 25_000])
def test_long_lines_take_linear_time(tokenizer: Tokenizer, text: str) -> None:
    def seconds(part: str) -> float:
        begin = time.process_time()
        tokenizer.decode(tokenizer.encode(part))
        return time.process_time() - begin

    seconds(text[:1000])
    short = max(min(seconds(text[: len(text) // 20]) for _ in range(3)), 2e-3)
    assert seconds(text) < 20 * short * 5  # quadratic would be 20 times as long, not at most 5


def test_many_threads_get_what_one_gets(tokenizer: Tokenizer) -> None:
    texts = [f"the house is {n} ü{n * 7919}" for n in range(200)]
    expected = [tokenizer.encode(text) for text in texts]
    results: dict[int, bool] = {}

    def work(number: int) -> None:
        ids = [tokenizer.encode(text) for text in texts]
        results[number] = ids == expected and [tokenizer.decode(i) for i in ids] == texts

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == dict.fromkeys(range(8), True)
