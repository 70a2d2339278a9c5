"""Augmented pairs: both sides change together, what must be copied is equal, and shares are met."""

from __future__ import annotations

import re
from collections import Counter
from random import Random

import pytest

from made_up_pairs import make_pairs
from mobilenmt.compression.core.errors import RecipeError
from mobilenmt.compression.core.pairs import Pair
from mobilenmt.compression.core.settings import from_mapping
from mobilenmt.compression.dataset import augment_copy, augment_text
from mobilenmt.compression.dataset.augment import SHARES, Augmenter, AugmentSettings
from mobilenmt.compression.dataset.augment_kept import KeptMaker
from mobilenmt.compression.dataset.word_pairs import associated_words, single_words

PAIRS = [Pair(*pair, "toy") for pair in make_pairs(3000)]
EN_DE = ("en", "de")
NONE = dict.fromkeys(SHARES, 0.0)


def only(pairs: list[Pair], seed: int = 1, **shares: object) -> list[tuple[str, Pair]]:
    settings = AugmentSettings(**{**NONE, **shares})  # type: ignore[arg-type]
    augmenter = Augmenter(settings, seed, languages=EN_DE, pairs=lambda: pairs)
    return [made for pair in pairs for made in augmenter.augment(pair)]


# --- what must be kept ----------------------------------------------------------------------------------------------


def test_words_that_translate_one_another_give_way_to_numbered_placeholders() -> None:
    words = [Pair("horse", "Pferd"), Pair("house", "Haus"), Pair("small", "klein"), Pair("sees", "sieht")]
    make = KeptMaker(words, "de")
    pair = Pair("The horse sees the small house of Maria", "Bei Maria sieht das Pferd ein klein gewordenes Haus")
    seen = Counter[int]()
    for seed in range(300):
        made = make(pair, Random(seed))
        if made is None:
            continue  # four or five were wanted
        sides = [re.findall(r'<x id="(\d)"/>|[{[%]+(\d)(?:\}\}?|\]|\$s)', side) for side in (made.source, made.target)]
        source, target = ([int("".join(found)) for found in side] for side in sides)
        assert source == list(range(len(source)))  # numbered as the source has them
        assert sorted(target) == source
        seen[len(source)] += 1
        assert ("Pferd" in made.target) == ("horse" in made.source)
        assert ("Bei Maria " in made.target) == ("Maria" in made.source)
        assert "sieht" in made.target and "klein" in made.target  # German writes nouns with a capital
    assert set(seen) == {1, 2, 3}


def test_a_word_with_two_translations_in_the_sentence_stays() -> None:
    make = KeptMaker([Pair("jolly", "gai"), Pair("jolly", "joyeux")], "fr")
    assert any(make(Pair("jolly", "gai"), Random(seed)) for seed in range(9))
    assert not any(make(Pair("jolly", "gai et joyeux"), Random(seed)) for seed in range(9))
    assert not any(make(Pair("jolly and jolly", "gai"), Random(seed)) for seed in range(9))
    assert not any(make(Pair("jolly {x}", "gai {x}"), Random(seed)) for seed in range(9))


def test_shared_names_need_no_dictionary() -> None:
    pair = Pair("I saw Maria in 2012", "Ich sah Maria 2012")
    made = {m.target for seed in range(30) if (m := KeptMaker([])(pair, Random(seed))) is not None}
    assert {'Ich sah <x id="0"/> <x id="1"/>', 'Ich sah <x id="0"/> 2012', 'Ich sah Maria <x id="0"/>'} <= made


# --- letters and marks ----------------------------------------------------------------------------------------------


def test_all_caps_on_both_sides_with_double_s() -> None:
    made = augment_text.all_caps(Pair("The street is big", "Die Straße ist groß"), EN_DE)
    assert made == Pair("THE STREET IS BIG", "DIE STRASSE IST GROSS")
    made = augment_text.all_caps(Pair("Die Straße", "The street"), ("de", "en"), sharp_s=True)
    assert made == Pair("DIE STRAẞE", "THE STREET")
    assert augment_text.all_caps(Pair("OK", "o.k."), EN_DE) is None
    assert augment_text.all_caps(Pair("title", "başlık ışık"), ("en", "tr")) == Pair("TITLE", "BAŞLIK IŞIK")
    assert augment_text.all_caps(Pair("milk is", "ilik"), ("en", "tr")) == Pair("MILK IS", "İLİK")
    assert augment_text.all_caps(Pair("hello", "Γειά σου"), ("en", "el")) == Pair("HELLO", "ΓΕΙΑ ΣΟΥ")


@pytest.mark.parametrize(
    "kept",
    ["{name}", "%s", "%(file)s", "%1$d", "{{0}}", "${x}", "<b>", "&amp;", "https://a.b/c", "a.b@c.de", "notes.txt"],
)
def test_case_changes_spare_what_is_copied(kept: str) -> None:
    pair = Pair(f"open {kept} now", f"jetzt {kept} öffnen")
    assert augment_text.all_caps(pair, EN_DE) == Pair(f"OPEN {kept} NOW", f"JETZT {kept} ÖFFNEN")
    assert augment_text.title_case(pair, "en") == pair._replace(source=f"Open {kept} Now")


def test_title_case() -> None:
    pair = Pair("the lord of the rings isn't über-long", "der Herr der Ringe")
    made = augment_text.title_case(pair, "en")
    assert made is not None and made == pair._replace(source="The Lord Of The Rings Isn't Über-Long")
    made = augment_text.title_case(pair, "en", minor_words=True)
    assert made == pair._replace(source="The Lord of the Rings Isn't Über-Long")
    assert augment_text.title_case(Pair("Already Title", "schon"), "en") is None


def test_lower_case_keeps_the_target() -> None:
    pair = Pair("Tom lives in Berlin", "Tom wohnt in Berlin")
    assert augment_text.lower_case(pair, "en") == pair._replace(source="tom lives in berlin")
    assert augment_text.lower_case(pair._replace(source="already low"), "en") is None
    assert augment_text.lower_case(Pair("ISPARTA İL", "x"), "tr") == Pair("ısparta il", "x")


def test_the_closing_mark_goes_on_both_sides_or_not_at_all() -> None:
    assert augment_text.without_end(Pair("Really?!", "Wirklich …")) == Pair("Really", "Wirklich")
    for pair in (Pair("Yes.", "Ja"), Pair("No", "Nein."), Pair("One. Two.", "Eins, zwei."), Pair("...", "x.")):
        assert augment_text.without_end(pair) is None


def test_sentences_are_joined_in_their_order() -> None:
    pairs = [Pair("One.", "Eins."), Pair("Two?", "Zwei?"), Pair("“Three!”", "„Drei!“", "t")]
    assert augment_text.joined(pairs) == Pair("One. Two? “Three!”", "Eins. Zwei? „Drei!“", "t")
    assert augment_text.joined([Pair("a title", "ein Titel"), Pair("One.", "Eins.")]) is None
    assert augment_text.joined([Pair("see this:", "siehe:"), Pair("One.", "Eins.")]) is None
    assert augment_text.joined([Pair("One.", "一。"), Pair("Two.", "二。")]) == Pair("One. Two.", "一。二。")


# --- copied things --------------------------------------------------------------------------------------------------

COPIES = [augment_copy.with_emoji, augment_copy.with_placeholder, augment_copy.with_number, augment_copy.with_address]


@pytest.mark.parametrize("change", COPIES, ids=lambda change: change.__name__)
def test_what_is_put_in_is_equal_on_both_sides(change) -> None:  # type: ignore[no-untyped-def]
    seen = set()
    for number, pair in enumerate(PAIRS):
        made = change(pair, Random(number))
        if made is None:
            continue
        assert made != pair and made.tag == pair.tag
        if made.source != made.target:
            changes = Counter(made.source), Counter(made.target)
            changes[0].subtract(pair.source)
            changes[1].subtract(pair.target)
            assert not any((changes[0] - changes[1]) + (changes[1] - changes[0])), (pair, made)
        seen.add(made.source)
    assert len(seen) > 500


def test_a_shared_name_or_number_gives_way_inside_the_sentence() -> None:
    pair = Pair("Then Maria paid 25 euros to us.", "Dann hat Maria uns 25 Euro bezahlt.")
    made = [augment_copy.with_placeholder(pair, Random(n)) for n in range(300)]
    sources = [m.source for m in made if m is not None]
    assert any(s.startswith("Then {") and s.endswith("} paid 25 euros to us.") for s in sources)
    assert any(s.startswith("Then <") and ">Maria</" in s for s in sources)
    numbers = [augment_copy.with_number(pair, Random(n)) for n in range(300)]
    inside = [m for m in numbers if m is not None and m.source.startswith("Then Maria paid ") and "(" not in m.source]
    assert len(inside) > 200
    for m in inside:
        assert m.source.split()[3] == m.target.split()[4] != "25"


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("It costs 1,000 euros", "Es kostet 1.000 Euro"),
        ("In 3.5 hours", "In 3,5 Stunden"),
        ("12 or 12 of them", "12 oder 12 davon"),
        ("1 apple", "1 Apfel"),
        ("at 10:30", "um 10:30"),
    ],
)
def test_numbers_that_languages_write_differently_stay(source: str, target: str) -> None:
    made = [augment_copy.with_number(Pair(source, target), Random(n)) for n in range(50)]
    found = [m for m in made if m is not None]
    assert any(m.source == m.target for m in found) and any(m.source.startswith(source) for m in found)
    for m in found:
        assert m.source == m.target or (m.source.startswith(source) and m.target.startswith(target))
    other = [augment_copy.with_number(Pair("It costs 40 euros", "Es kostet 40 Euro"), Random(n)) for n in range(50)]
    assert sum("It costs 40 " not in m.source for m in other if m) > 30, "a number that both write alike is changed"


# --- words ----------------------------------------------------------------------------------------------------------


def test_words_come_from_pairs_of_one_word_and_from_company() -> None:
    odd = [Pair("Hello!", "„Hallo“"), Pair("well-known", "wohlbekannt"), Pair("two words", "Wort"), Pair("42", "42")]
    assert list(single_words(odd)) == [Pair("Hello", "Hallo"), Pair("well-known", "wohlbekannt")]

    choose = Random(1)
    things = [
        (f"{a}{b}", f"{b}{a}") for a in ("ka", "mu", "ti", "so", "pe", "lo") for b in ("ran", "des", "vik", "tol")
    ]
    fillers = [f"x{chr(97 + n // 10)}{chr(97 + n % 10)}" for n in range(70)]
    pairs = []
    for _ in range(3000):
        picked = choose.sample(things, 2)
        filler = choose.sample(fillers, k=7)
        pairs.append(
            Pair(
                " ".join(["The", *filler, *(p[0] for p in picked)]),
                " ".join(["Die", *filler, picked[1][1], picked[0][1]]),
            )
        )
    found = list(associated_words(lambda: pairs))
    assert {(p.source, p.target) for p in found if not p.source.startswith("x")} == set(things)
    assert list(associated_words(lambda: pairs[:3])) == []


def test_words_are_not_repeated_for_ever() -> None:
    words = [Pair("house", "Haus", "toy"), Pair("river", "Fluss", "toy"), *PAIRS[:98]]
    made = only(words * 3, words=1.0)
    assert {pair for _, pair in made} == set(words[:2])
    assert len(made) == 40  # 20 times each


# --- the whole ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [kind for kind in SHARES if kind != "words"])
def test_each_share_is_met(kind: str) -> None:
    made = only(PAIRS, **{kind: 0.1})
    assert {name for name, _ in made} == {kind}
    assert abs(len(made) / len(PAIRS) - 0.1) < 0.02
    assert all(pair.source and pair.target and pair.tag == "toy" for _, pair in made)


def test_a_rare_chance_is_taken_when_it_comes() -> None:
    letters = str.maketrans("0123456789", "abcdefghij")
    pairs = [Pair(a.translate(letters), b.translate(letters)) for a, b, _ in PAIRS[100:1000]] + PAIRS[:100]
    found = [pair for _, pair in only(pairs, numbers=0.05)]
    assert 40 <= len(found) <= 60
    assert sum(pair.source != pair.target and "(" not in pair.source for pair in found) > 30


def test_what_is_made_depends_on_seed_and_pair_alone() -> None:
    shares = dict.fromkeys(set(SHARES) - {"words", "sentences"}, 0.05)
    first = only(PAIRS, **shares)
    assert first == only(PAIRS, **shares)
    assert first != only(PAIRS, seed=2, **shares)
    settings = AugmentSettings(**{**NONE, "emoji": 0.5})
    augmenter = Augmenter(settings, 1)
    copies = {tuple(pair for _, pair in augmenter.augment(PAIRS[0], copy)) for copy in range(20)}
    assert len(copies) > 5  # repetitions of a pair differ


def test_nothing_is_joined_across_tags() -> None:
    mixed = [
        pair._replace(tag=f"t{number % 3}", source=f"{number}. {pair.source}") for number, pair in enumerate(PAIRS)
    ]
    found = only(mixed, sentences=0.2)
    assert len(found) > 400
    for _, made in found:
        numbers = [int(word[:-1]) for word in made.source.split() if word.endswith(".") and word[:-1].isdigit()]
        assert len(numbers) >= 2 and {f"t{n % 3}" for n in numbers} == {made.tag} and numbers == sorted(numbers)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"emoji": 1.5}, "augment.emoji: expected a share from 0 to 1"),
        ({"emoji": 0.6, "words": 0.6}, "augment: all shares together|augment.all_caps: the shares add up to"),
        ({"typos": 0.1}, "augment.typos: no such setting"),
    ],
)
def test_settings_are_checked(raw: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        from_mapping(AugmentSettings, raw, "augment")
