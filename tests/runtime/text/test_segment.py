"""runtime/text/segment.py: what is translated, what is kept as layout, and where an overlong line is cut."""

from __future__ import annotations

import itertools
import random
import sys
import time
import unicodedata
from collections.abc import Sequence

import pytest

from mobilenmt.runtime.errors import InputError
from mobilenmt.runtime.text.segment import _BLANK, Encode, Piece, segments


def words(text: str) -> Sequence[int]:
    """Encode as a tokenizer whose pieces are words."""
    return range(len(text.split()))


def utf8(text: str) -> Sequence[int]:
    """Encode as a tokenizer that spells everything in bytes (3 for a Chinese character)."""
    return text.encode("utf-8", "surrogatepass")


def pairs(text: str) -> Sequence[int]:
    """Encode as a tokenizer that merges: not monotone, "abc" is 2 but "ab c" may be fewer than its parts."""
    return range(1 + len(text) // 2 - text.count("ab"))


def translated(text: str, limit: int, encode: Encode = words) -> list[str]:
    pieces = segments(text, encode, limit)
    assert "".join(piece.text for piece in pieces) == text
    found = [piece for piece in pieces if piece.ids is not None]
    assert [piece.ids for piece in found] == [encode(piece.text) for piece in found]
    return [piece.text for piece in found]


def test_a_line_within_the_limit_is_one_piece() -> None:
    assert segments("Go home. Now; or later, if you like.", words, 8) == [
        Piece("Go home. Now; or later, if you like.", range(8))
    ]


def test_layout_stays_between_the_lines() -> None:
    assert segments("\ufeff  One\t\r\n\n \t\n- Two  \n", words, 8) == [
        Piece("\ufeff  ", start=0, line=0),
        Piece("One", range(1), start=3, line=0),
        Piece("\t\r\n\n \t\n- ", start=6, line=0),
        Piece("Two", range(1), start=15, line=3),
        Piece("  \n", start=18, line=3),
    ]


@pytest.mark.parametrize("separator", ["\n", "\r", "\r\n", "\x0b", "\x0c", "\x85", "\u2028", "\u2029"])
def test_every_line_end_separates(separator: str) -> None:
    assert segments(f"a{separator}b", words, 8) == [
        Piece("a", range(1)),
        Piece(separator, start=1),
        Piece("b", range(1), start=1 + len(separator), line=1),
    ]


@pytest.mark.parametrize("text", ["", " ", "\n\n", " \t\u3000\xa0\n ", "\x00", "\x00\x1b \n\x7f", "\u200b\ufeff"])
def test_text_without_content_is_not_translated(text: str) -> None:
    assert translated(text, 4) == []


def test_a_lone_surrogate_is_no_word() -> None:
    assert translated(" \ud800 ", 4) == [] and translated("a \ud800 b", 8) == ["a \ud800 b"]


def test_blank_is_what_python_strips() -> None:
    spaces = {chr(code) for code in range(sys.maxunicode + 1) if chr(code).isspace()}
    assert set(_BLANK) == spaces | {"\ufeff", "\u200b"}


def test_the_end_of_a_sentence_comes_first() -> None:
    text = 'He came. She said: "Go, now!" Then, at last; he went.'
    assert translated(text, 7) == ['He came. She said: "Go, now!"', "Then, at last; he went."]


def test_sentences_are_packed_to_the_limit() -> None:
    assert translated("Aa b! C d? E f… G go. I am.", 4) == ["Aa b! C d?", "E f… G go.", "I am."]


def test_clauses_come_second_and_spaces_third() -> None:
    assert translated("one two, three four; five six seven eight nine", 4) == [
        "one two, three four;",
        "five six seven eight",
        "nine",
    ]


def test_a_short_sentence_behind_an_overlong_one_joins_its_rest() -> None:
    assert translated("A b c d e. F g. H.", 4) == ["A b c d", "e. F g. H."]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Tell him: Dr. Smith comes on 3. May. Yes he will. He will.", "Tell him: Dr. Smith comes on 3. May."),
        ("Some of us, z. B. Anna. Or J. Miller and all their friends.", "Some of us, z. B. Anna."),
        ("It is 3.50 at shop.example ... not more. Too much. I think.", "It is 3.50 at shop.example ... not more."),
    ],
)
def test_a_full_stop_that_ends_no_sentence(text: str, expected: str) -> None:
    assert translated(text, 9)[0] == expected


def test_chinese_ends_sentences_without_spaces() -> None:
    assert translated("他来了。她说：「走吧！」然后他走了。", 27, utf8) == [
        "他来了。",
        "她说：「走吧！」",
        "然后他走了。",
    ]
    assert translated("他来了。她说走吧！然后他走了。", 30, utf8) == ["他来了。她说走吧！", "然后他走了。"]


def test_a_no_break_space_is_not_cut() -> None:
    assert translated("abcd 10\xa0000 efg", 10, utf8) == ["abcd", "10\xa0000", "efg"]


@pytest.mark.parametrize(
    "cluster",
    [
        "e\u0301",  # a combining accent
        "\U0001f44d\U0001f3fd",  # a skin tone
        "\u2764\ufe0f",  # a variation selector
        "\U0001f468\u200d\U0001f469\u200d\U0001f467",  # a family
        "\U0001f1e9\U0001f1ea",  # a flag
        "\u1112\u1161\u11ab",  # a Hangul syllable in parts
        "\u0915\u093f",  # a Devanagari vowel sign
    ],
)
def test_a_cut_inside_a_word_keeps_graphemes_whole(cluster: str) -> None:
    size = len(utf8(cluster))
    for limit in range(size, 3 * size):
        for piece in translated("x" + cluster * 20, limit, utf8):
            assert not unicodedata.category(piece[0]).startswith("M")
            assert piece.removeprefix("x").replace(cluster, "") == ""


def test_a_tower_of_marks_is_cut_all_the_same() -> None:
    assert [len(piece) for piece in translated("a" + "\u0301" * 50, 21, utf8)] == [11, 10, 10, 10, 10]


def test_one_character_above_the_limit_is_a_piece() -> None:
    assert translated("日本", 1, utf8) == ["日", "本"]


def test_limit_below_one_is_refused() -> None:
    with pytest.raises(InputError, match="at least 1 token, not 0"):
        segments("a", words, 0)


@pytest.mark.parametrize("encode", [words, utf8, pairs])
def test_random_texts_are_put_together_again(encode: Encode) -> None:
    """The property that matters: exact join, no two layouts in a row, and no piece above the limit that can be cut."""
    rng = random.Random(7)
    alphabet = ["a", "b", "ab", "I", "12", ".", "!", "…", "。", ",", ";", " – ", " ", " ", "  ", "\n", "\r", "\t", '"']
    alphabet += [
        "\xa0",
        "\u2028",
        "é",
        "e\u0301",
        "日",
        "\U0001f600",
        "\u200d",
        "\U0001f1e9",
        "\x00",
        "\ud800",
        "\ufeff",
    ]
    for _ in range(1500):
        text = "".join(rng.choice(alphabet) for _ in range(rng.randrange(60)))
        limit = rng.randrange(1, 20)
        pieces = segments(text, encode, limit)
        assert "".join(piece.text for piece in pieces) == text
        assert all(piece.text for piece in pieces)
        for first, second in itertools.pairwise(pieces):
            assert first.ids is not None or second.ids is not None
        for piece in pieces:
            if piece.ids is not None:
                assert piece.text == piece.text.strip(_BLANK)
                assert piece.ids == encode(piece.text)
                assert len(piece.ids) <= limit or len(piece.text) == 1, (text, limit, piece)


@pytest.mark.parametrize(
    "unit",
    ["Where is the station? ", "word ", "a", ".", '!"', "日", "e\u0301", "\u0301", "\U0001f1e9", "a,", "x. y ", "' "],
)
def test_a_very_long_line_takes_linear_time(unit: str) -> None:
    """Encodings stay few, and each bounded, whatever the text is made of."""
    limit = 200
    text = (unit * (300_000 // len(unit)))[:300_000]
    calls = characters = 0

    def encode(part: str) -> Sequence[int]:
        nonlocal calls, characters
        calls += 1
        characters += len(part)
        assert len(part) <= 64 * limit
        return range(max(1, len(part) // 4))

    began = time.process_time()
    pieces = segments(text, encode, limit)
    took = time.process_time() - began
    assert "".join(piece.text for piece in pieces) == text
    cuts = sum(piece.ids is not None for piece in pieces)
    assert cuts <= 2 * len(text) / (4 * limit) + 2
    assert calls <= 16 * cuts
    assert characters <= 16 * len(text)
    assert took < 2


@pytest.mark.parametrize("line", ["```python", "``` js", "~~~", "```", "  ```c++", "```{r, echo=FALSE}"])
def test_a_fence_is_layout(line: str) -> None:
    pieces = segments(f"{line}\nThe dog", lambda part: [0] * len(part), 100)
    assert [piece.text for piece in pieces if piece.ids is not None] == ["The dog"]


def test_words_behind_a_fence_are_translated() -> None:
    pieces = segments("```the dog sleeps``` here", lambda part: [0] * len(part), 100)
    assert any(piece.ids is not None for piece in pieces)
