"""Terms by a search for translations that hold them: what is tried, in which order, and what counts as held."""

from __future__ import annotations

import pytest

from mobilenmt import Glossary, InputError, Translator
from mobilenmt.runtime.native import LIBRARY
from mobilenmt.runtime.text.forms import Placeholders
from mobilenmt.runtime.text.glossary import METHODS
from mobilenmt.runtime.text.keeper import Keeper
from mobilenmt.runtime.text.placing import Output, Result
from mobilenmt.runtime.text.terms.words import Spelling, holds
from places import ROOT

GLOSSARY = Glossary.from_lines(["dog\tKöter", "house\tHaus\tHäuser"])


@pytest.mark.parametrize(
    ("text", "targets", "found"),
    [
        ("Der Köter bellt.", ["Köter"], True),
        ("Die Kötergasse", ["Köter"], False),
        ("Strassenköter und Köter", ["Köter"], True),
        ("Köter und Köter", ["Köter", "Köter"], True),
        ("ein Köter", ["Köter", "Köter"], False),
        ("Haus am See", ["Haus", "Haus am See"], False),
        ("Haus, Haus am See", ["Haus", "Haus am See"], True),
        ("„Köter“-Haus", ["Köter", "Haus"], True),
        ("我喜欢狗的", ["狗"], True),
        ("köter", ["Köter"], False),
        ("", [], True),
    ],
)
def test_a_term_is_held_as_a_word(text: str, targets: list[str], found: bool) -> None:
    assert holds(text, targets) is found


class Letters:
    """A vocabulary of letters, with marks for spaces; it has no ö."""

    PIECES = ("</s>", "▁", "▁a", "a", "b", "ß", "9", ",", "狗")

    def encode(self, text: str) -> list[int]:
        return [1, *(self.PIECES.index(letter) if letter in self.PIECES else 0 for letter in text)]

    def decode(self, ids: list[int]) -> str:  # type: ignore[override]
        return "".join(self.PIECES[i] for i in ids).replace("</s>", "?").replace("▁", " ").strip()

    def pieces(self, ids: range) -> list[str]:  # type: ignore[override]
        return [self.PIECES[i] for i in ids]


def test_a_term_is_spelled_if_its_pieces_give_it_back() -> None:
    spelling = Spelling(Letters(), 9)  # type: ignore[arg-type]
    assert spelling.of(["ab", "ß"]) == [(1, 3, 4), (1, 5)]
    assert spelling.of(["ab", "öb"]) is None
    assert Spelling(Letters(), 5).of(["ß"]) is None  # type: ignore[arg-type]
    assert [Letters.PIECES[i] for i, inner in enumerate(spelling.continuing) if inner] == ["a", "b", "ß", "9"]


class Model:
    """A model that says what it is told to, and a search likewise; both remember what they were asked."""

    def __init__(self, said: str = "nichts", whole: Output | None = None, inside: Output | None = None) -> None:
        self._said, self._whole, self._inside = said, whole, inside
        self.asked: list[str] = []
        self.searched: list[tuple[str, tuple[str, ...]]] = []

    def translate(self, texts: list[str], wanted: int) -> list[list[Output]]:
        self.asked += texts
        return [[Output(text.replace("The", "Ein") if "<" in text else self._said)] * wanted for text in texts]

    def search(self, texts: list[str], terms: list[list[str]]) -> list[list[Output]]:
        self.searched += [(text, tuple(words)) for text, words in zip(texts, terms, strict=True)]
        found = [self._inside if "Köter" in text or "Häuser" in text else self._whole for text in texts]
        return [[item] if item else [] for item in found]

    def run(self, text: str) -> Result:
        form = Placeholders(('<x id="#"/>',))
        return Keeper(self.translate, placeholders=form, glossary=GLOSSARY, search=self.search).run([text])[0]


def test_what_the_model_says_by_itself_needs_no_search() -> None:
    model = Model("Der Köter bellt.")
    assert model.run("The dog barks.").text == "Der Köter bellt."
    assert (model.asked, model.searched) == (["The dog barks."], [])


@pytest.mark.parametrize(
    ("whole", "inside", "wanted"),
    [
        (Output("Der Köter.", score=-0.6), Output("Ein Köter.", score=-0.4), "Der Köter."),
        (Output("Der Köter.", score=-1.5), Output("Ein Köter.", score=-0.4), "Ein Köter."),
        (None, Output("Ein Köter.", score=-5.0), "Ein Köter."),
        (Output("Der Köter.", score=-5.0), None, "Der Köter."),
        (None, None, "Ein Köter barks."),
        (Output("Der Hund.", score=-0.1), None, "Ein Köter barks."),
        (Output("Der Hund.", score=-0.1), Output("Ein Köter.", score=-5.0), "Ein Köter."),
    ],
)
def test_the_likelier_of_two_searches_counts_then_placeholders(
    whole: Output | None, inside: Output | None, wanted: str
) -> None:
    model = Model(whole=whole, inside=inside)
    result = model.run("The dog barks.")
    assert result.text == wanted
    assert model.searched == [("The dog barks.", ("Köter",)), ("The Köter barks.", ("Köter",))]
    assert any("<x" in text for text in model.asked) is wanted.endswith("barks.")


def test_what_else_is_kept_has_placeholders_in_the_search() -> None:
    model = Model(whole=Output('Köter in <x id="0"/>', score=-1), inside=None)
    assert model.run("The dog of a@example.com").text == "Köter in a@example.com"
    assert model.searched[1] == ('The Köter of <x id="0"/>', ("Köter",))
    lost = Model(whole=Output("Köter", score=-1), inside=None)
    assert lost.run("The dog of a@example.com").text == "Ein Köter of a@example.com"


def test_terms_may_change_their_order() -> None:
    model = Model(inside=Output("Häuser der Köter", score=-1))
    assert model.run("The dog of the houses").text == "Häuser der Köter"


def test_a_term_that_touches_a_quote_is_no_word_for_the_search() -> None:
    model = Model()
    assert model.run('The "dog" barks.').text == 'Ein "Köter" barks.'
    assert not model.searched


ENGINES = [
    pytest.param("native", marks=pytest.mark.skipif(not LIBRARY.is_file(), reason="the C core was not compiled")),
    "onnx",
]


@pytest.fixture(scope="module", params=ENGINES)
def shipped(request: pytest.FixtureRequest) -> Translator:
    return Translator(ROOT / "models" / "en-de", engine=request.param)


SOURCES = ["The dog closed the door of two houses.", "Write to max@example.com about the dog.", "My house is old."]


@pytest.mark.parametrize("method", [*METHODS, None])
def test_all_terms_are_there_by_each_method(shipped: Translator, method: str | None) -> None:
    wanted = [["Köter", "Häuser"], ["Köter", "max@example.com"], ["Haus"]]
    found = shipped.translate_batch(SOURCES, glossary=GLOSSARY, glossary_method=method)
    for item, words in zip(found, wanted, strict=True):
        assert holds(item.text, words), item.text
    if method == "search":
        assert [item.text for item in found] == [shipped.translate(text, glossary=GLOSSARY) for text in SOURCES], (
            "the default, one at a time"
        )
        assert found[2].text == shipped.translate(SOURCES[2]), "nothing to change"
        assert list(shipped.stream(SOURCES[0], glossary=GLOSSARY))[-1] == found[0].text


def test_all_of_several_translations_hold_the_terms(shipped: Translator) -> None:
    (found,) = shipped.translate_batch(SOURCES[:1], glossary=GLOSSARY, n_best=3, details=True)
    texts = [found.text, *(item.text for item in found.alternatives)]
    assert len(set(texts)) == len(texts) > 1
    assert all(holds(text, ["Köter", "Häuser"]) for text in texts)
    links = [(SOURCES[0][a:b], found.text[c:d]) for a, b, c, d in found.sentences[0].links]
    assert ("dog", "Köter") in links


def test_terms_that_no_search_can_look_for_have_placeholders(shipped: Translator) -> None:
    """What the vocabulary lacks, and more than a sentence may have."""
    strange = Glossary.from_lines(["dog\t犬々𐍈"])
    assert "犬々𐍈" in shipped.translate(SOURCES[0], glossary=strange)
    many = " ".join(["dog"] * 70)
    assert shipped.translate(many, glossary=GLOSSARY).lower().count("köter") == 70
    assert "Köter" in shipped.translate_batch([SOURCES[0]], glossary=GLOSSARY, max_length=6)[0].text


def test_a_method_that_is_none_is_told(shipped: Translator) -> None:
    with pytest.raises(InputError, match="glossary_method must be search or placeholders, not 'magic'"):
        shipped.translate("dog", glossary=GLOSSARY, glossary_method="magic")
