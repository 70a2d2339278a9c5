"""Links of words: from tokens to characters of the sentence as it was given and of the translation as it is shown."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from mobilenmt.runtime.text.forms import Placeholders
from mobilenmt.runtime.text.keeper import Keeper, Output
from mobilenmt.runtime.text.kept import default_rules, find
from mobilenmt.runtime.text.links import Linker, by_pieces, by_prefixes, by_words, shown, unprotected
from mobilenmt.runtime.text.placeholders import protect
from mobilenmt.runtime.text.placing import Link


class Pieces:
    """A tokenizer: pieces of up to three characters, ``▁`` before a word; ids are places in a list."""

    def __init__(self, odd: bool = False) -> None:
        self.known: list[str] = []
        self._odd = odd

    def encode(self, text: str) -> list[int]:
        found = []
        for word in text.split():
            marked = f"▁{word}"
            for start in range(0, len(marked), 3):
                piece = marked[start : start + 3]
                if piece not in self.known:
                    self.known.append(piece)
                found.append(self.known.index(piece))
        return found

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(self.known[i] for i in ids).replace("▁", " ").strip()

    def pieces(self, ids: Sequence[int]) -> list[str]:
        return ["?" for _ in ids] if self._odd else [self.known[i] for i in ids]

    @property
    def linker(self) -> Linker:
        return Linker(self.encode, self.decode, self.pieces)


def named(links: Sequence[Link], source: str, target: str) -> list[tuple[str, str]]:
    return [(source[a:b], target[c:d]) for a, b, c, d in links]


def test_the_three_ways_from_tokens_to_words_agree() -> None:
    tokenizer = Pieces()
    text = "The little house, it is red."
    ids = tokenizer.encode(text)
    found = by_pieces(text, tokenizer.pieces(ids))
    assert found is not None and len(found) == len(ids)
    assert found == by_words(text, len(ids), lambda word: len(tokenizer.encode(word)))
    assert found == by_prefixes(text, ids, tokenizer.decode)
    assert [text[a:b] for a, b in dict.fromkeys(span for span in found if span)] == text.split()


@pytest.mark.parametrize(
    ("text", "pieces"),
    [("the house", ["▁the", "▁hous"]), ("the house", ["▁a", "▁house"]), ("café", ["▁cafe", "\u0301"])],
)
def test_pieces_that_are_not_the_text_tell_nothing(text: str, pieces: list[str]) -> None:
    assert by_pieces(text, pieces) is None


def test_words_that_take_other_tokens_together_than_alone_tell_nothing() -> None:
    assert by_words("the red house", 4, lambda word: 1) is None
    assert by_words("the red house", 2, lambda word: 1) is None


def test_a_piece_of_several_words_is_of_all_and_scripts_without_spaces_are_of_single_characters() -> None:
    assert by_pieces("out of it", ["▁out▁of", "▁it"]) == [(0, 6), (7, 9)]
    assert by_pieces("你好ab", ["▁你", "好", "a", "b"]) == [(0, 1), (1, 2), (2, 4), (2, 4)]
    assert by_pieces("a b", ["▁a", "▁", "b"]) == [(0, 1), None, (2, 3)]


@pytest.mark.parametrize("odd", [False, True])
def test_links_are_those_of_the_alignment(odd: bool) -> None:
    tokenizer = Pieces(odd)
    source, target = "the white house", "la maison blanche"
    ids, output = tokenizer.encode(source), tokenizer.encode(target)
    words = {"la": "the", "maison": "house", "blanche": "white"}
    ends = {
        word: sum(len(tokenizer.encode(w)) for w in source.split()[: index + 1]) - 1
        for index, word in enumerate(source.split())
    }
    alignment = [ends[words[word]] for word in target.split() for _ in tokenizer.encode(word)]
    found = tokenizer.linker.links(source, ids, target, output, alignment)
    assert named(found, source, target) == [("the", "la"), ("white", "blanche"), ("house", "maison")]
    nothing = [len(ids)] * len(output)
    assert tokenizer.linker.links(source, ids, target, output, nothing) == []
    # a loop was cut out: the alignment is of other tokens
    assert tokenizer.linker.links(source, ids, target, output[1:], alignment) == []
    assert tokenizer.linker.links(source, ids, target, output, None) == []


def test_a_code_before_the_text_has_no_link_and_moves_none() -> None:
    tokenizer = Pieces()
    source, target = "red house", "maison rouge"
    output = tokenizer.encode(target)
    bare = tokenizer.encode(source)
    ids = [*tokenizer.encode("XY"), *bare]
    alignment = [0, *[len(ids) - 1] * (len(output) - 1)]
    links = tokenizer.linker.links(source, ids, target, output, alignment)
    assert ("house", "rouge") in named(links, source, target)
    assert all(source[a:b] != "XY" for a, b, _, _ in links)


def test_placeholders_become_their_spans_in_the_source() -> None:
    text = "Write to max@example.com or to {user}, please."
    kept = find(text)
    protected = protect(text, kept, "[#]")
    assert protected is not None and protected.text == "Write to [0] or to [1], please."
    ends = [(0, 5), (9, 12), (13, 15), (19, 22), (24, 31)]
    found = unprotected([(a, b, 0, 1) for a, b in ends], protected, kept, 10)
    assert [text[a - 10 : b - 10] for a, b, _, _ in found] == ["Write", "max@example.com", "or", "{user}", "please."]
    tags = "Click <b>Save</b> now."
    spaced = protect(tags, find(tags), "[#]", default_rules())
    assert spaced is not None and spaced.text == "Click [0] Save [1] now."
    found = unprotected([(a, b, 0, 1) for a, b in [(6, 9), (10, 14), (15, 18), (19, 23)]], spaced, find(tags))
    assert [tags[a:b] for a, b, _, _ in found] == ["<b>", "Save", "</b>", "now."]


def test_a_mark_that_was_put_behind_a_text_has_no_link() -> None:
    protected = protect("I love it.", (), "[#]")
    assert protected is not None
    assert unprotected([(2, 6, 0, 1), (7, 10, 2, 3)], protected, (), 4, 9) == [(6, 10, 0, 1), (11, 13, 2, 3)]


@pytest.mark.parametrize(
    ("output", "text", "words"),
    [
        ("open the window", "OPEN THE WINDOW", ["OPEN", "THE", "WINDOW"]),
        ("open the window", "Open the Window", ["Open", "the", "Window"]),
        ("see 71046. now", "see https://x.y/z. now", ["see", "https://x.y/z.", "now"]),
        ("I see it.", "I see it", ["I", "see", "it"]),
        ("die straße", "DIE STRASSE", ["DIE", "STRASSE"]),
        ("he art there", "heart art there", [None, "art", "there"]),
    ],
)
def test_words_are_found_one_after_the_other_in_what_is_shown(output: str, text: str, words: list[str | None]) -> None:
    links = []
    at = 0
    for index, word in enumerate(output.split()):
        at = output.index(word, at)
        links.append((index, index + 1, at, at + len(word)))
        at += len(word)
    found, end = shown(links, output, text, [("71046", "https://x.y/z")])
    assert {a: text[c:d] for a, _, c, d in found} == {i: word for i, word in enumerate(words) if word is not None}
    assert end == max(d for _, _, _, d in found)


def test_a_lost_span_is_put_back_where_the_links_say_before_parts_are_tried() -> None:
    source = "Press {key} to begin the game."

    def translate(texts: list[str], wanted: int) -> list[list[Output]]:
        lost = "Zum Start drücken."
        found = []
        for text in texts:
            at = text.index("to")
            links = [(0, 5, 10, 18), (at, at + 2, 0, 3), (at + 3, at + 8, 4, 9)]
            found.append([Output(lost, links)] * wanted)
        return found

    result = Keeper(translate, placeholders=Placeholders(("[#]",))).run([source])[0]
    assert result.flags == ("placed",) and result.text.count("{key}") == 1
    assert [(source[a:b], result.outputs[0].text[c:d]) for a, b, c, d in result.outputs[0].links] == [
        ("Press", "drücken."),
        ("to", "Zum"),
        ("begin", "Start"),
    ]
