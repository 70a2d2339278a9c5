"""Each rule drops what it is for, and leaves good text alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from made_up_pairs import make_pairs
from mobilenmt.compression.core.errors import CorpusError, RecipeError
from mobilenmt.compression.corpus.clean import RULES, Cleaner, CleanSettings, tidy
from mobilenmt.compression.corpus.held_out import HeldOut, fold, read_held_out
from mobilenmt.compression.corpus.language_id import SMALLEST_SAMPLE, LanguageCheck

PAIRS = make_pairs(400)
ENGLISH = "The old king has the letter with the bird in the garden and is here with the dog."
GERMAN = "Der alte König hat den Brief mit dem Vogel in dem Garten und ist hier mit dem Hund."


def drops(source: str, target: str, **settings: float) -> str | None:
    cleaner = Cleaner(CleanSettings(**settings), LanguageCheck(PAIRS, ("en", "de")), HeldOut())  # type: ignore[arg-type]
    return cleaner.drops(tidy(source), tidy(target))


@pytest.mark.parametrize(
    ("source", "target", "rule"),
    [
        ("", "leer", "empty"),
        ("...", "…", "empty"),
        ("♪ ♪", "la la", "empty"),
        ("a bell \x07 rang", "es klingelte", "control"),
        ("the world\x92s end", "das Ende der Welt", "control"),
        ("it is \ufffd broken", "es ist kaputt", "control"),
        ("an icon \ue000 here", "ein Symbol hier", "control"),
        ("word " * 181, "Wort " * 181, "length"),
        ("Yes, of course.", "Ja, natürlich, und dann haben wir den ganzen Tag lang nichts anderes getan.", "ratio"),
        ("This sentence was not translated.", "This sentence was not translated", "identical"),
        ("One-Two Three-Four", "One Two Three Four", "identical"),
        ('He said "no" to it.', "Er sagte &quot;nein&quot; dazu.", "markup"),
        ("See [[the house]] there", "Siehe das Haus dort", "markup"),
        (GERMAN, ENGLISH, "language"),
        (ENGLISH, ENGLISH.replace("old", "alte").replace("dog", "Hund"), "language"),
        (ENGLISH, "Le vieux roi est dans le jardin avec une lettre et un oiseau pour son chien.", "language"),
        (ENGLISH, "Старый король сидит в саду с письмом, и с птицей, и с собакой, и он рад.", "language"),
        ("工作流文档 —— 官方指南在这里可以找到", "Die Dokumentation der Arbeitsabläufe", "language"),
    ],
)
def test_a_rule_drops_what_it_is_for(source: str, target: str, rule: str) -> None:
    assert drops(source, target) == rule
    assert rule in RULES


@pytest.mark.parametrize(
    ("source", "target"),
    [
        (ENGLISH, GERMAN),
        ("Yes.", "Jawohl!"),
        ("Berlin", "Berlin"),
        ("Windows 11 Pro", "Windows 11 Pro"),
        ("1999", "1999"),
        ("555-123-4567.", "555-123-4567."),
        ("I love it 😍👨‍👩‍👧", "Ich liebe es 😍👨‍👩‍👧"),
        ("a soft\u00adhyphen, a\u00a0space, e\u0301", "ein Trenn\u00adstrich, ein\u00a0Leerzeichen, e\u0301"),
        ("ﬁne ½ … “quotes” ＡＢＣ", "fein ½ … „Zitate“ ＡＢＣ"),
        ("Press <b>here</b> & there", "Drücken Sie <b>hier</b> & dort"),
        ("if a < b and c > d", "wenn a < b und c > d"),
        ("Copy <file> to {name} or %s", "<Datei> nach {name} oder %s kopieren"),
        ("See https://example.com/a-very-long-path/that/goes/on/and/on?x=1&y=2", "Siehe https://example.com/a-very"),
        ("The CEO of The House of the Dragon is here", "Der Chef von The House of the Dragon ist hier"),
        ("Finance and Operations in the house", "Finance and Operations in dem Haus"),
        ("I've never forgotten Tom's birthday.", "Ich habe Toms Geburtstag nie vergessen."),
        ("I/O and A/B: do you see o or a?", "E/A und A/B: siehst du o oder a?"),
        ("to be or not to be", "to be or not to be, ist die Frage von dem alten König"),
    ],
)
def test_good_pairs_stay(source: str, target: str) -> None:
    assert drops(source, target) is None


def test_thresholds_are_the_settings(tmp_path: Path) -> None:
    assert drops("one two three", "eins zwei drei", max_characters=12) == "length"
    assert drops("a b c d e", "a b c d e", max_identical_words=5) is None
    assert drops("How do you do, my old friend from school?", "好久不见，老朋友！", max_ratio=1.5) == "ratio"
    assert drops(GERMAN, ENGLISH, language=False) is None
    # a translation into Chinese has a third of the characters
    scaled = Cleaner(CleanSettings(max_ratio=1.5, length_scale=0.3), None, HeldOut())
    assert scaled.drops("How do you do, my old friend from school?", "好久不见，老朋友！") is None
    assert scaled.drops("How are you?", "Wie geht es dir, mein alter Freund aus der Schule?") == "ratio"


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"max_characters": 0}, "max_characters: expected at least 1, found 0"),
        ({"max_ratio": 0.5}, "max_ratio: expected at least 1"),
        ({"length_scale": 0.0}, r"length_scale: expected 0\.01 to 100"),
        ({"held_out_words": -1}, "held_out_words: expected 0 or more"),
    ],
)
def test_thresholds_out_of_range_are_refused(raw: dict[str, float], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        CleanSettings(**raw)  # type: ignore[arg-type]


def test_white_space_is_tidied_and_nothing_else() -> None:
    assert tidy("  a \t b\u2028c\r\n") == "a b c"
    assert tidy("a\u00a0b\u2009c\u3000d") == "a\u00a0b\u2009c\u3000d"
    assert tidy("\ufeffx") == "x"
    text = "ﬁ ½ … ſ Å Å ＡＢＣ \u200d\u200b e\u0301"
    assert tidy(text) == text


# --- languages ------------------------------------------------------------------------------------------------------


def test_hardly_a_good_pair_is_taken_for_another_language() -> None:
    check = LanguageCheck(PAIRS, ("en", "de"))
    others = make_pairs(2000, seed=2)
    assert not any(check.wrong(*pair) for pair in others)
    assert all(check.wrong(target, source) for source, target in others)


def test_a_few_swapped_pairs_in_the_sample_do_no_harm() -> None:
    mixed = [pair if number % 20 else (pair[1], pair[0]) for number, pair in enumerate(PAIRS)]
    check = LanguageCheck(mixed, ("en", "de"))
    check.verify()
    assert not check.wrong(ENGLISH, GERMAN) and check.wrong(GERMAN, ENGLISH)


def test_a_language_that_no_list_has_is_not_judged_by_its_words() -> None:
    made_up = str.maketrans("aeioudnst", "oaueiktrl")
    pairs = [(source, target.lower().translate(made_up)) for source, target in PAIRS]
    check = LanguageCheck(pairs, ("en", "qx"))
    check.verify()
    foreign = GERMAN.lower().translate(made_up)
    assert not check.wrong(ENGLISH, foreign) and not check.wrong(ENGLISH, GERMAN)
    assert check.wrong(GERMAN, foreign) and check.wrong(ENGLISH, "Старый король сидит в саду с письмом")


def test_scripts_without_spaces() -> None:
    pairs = [
        (source, "我们今天在这里看到了老国王的花园" + "和狗鸟树船信"[n % 6] * 2) for n, (source, _) in enumerate(PAIRS)
    ]
    check = LanguageCheck(pairs, ("en", "zh"))
    check.verify()
    assert not check.wrong(ENGLISH, "老国王今天在花园里看到了我们的狗")
    assert check.wrong("老国王今天在花园里看到了我们的狗", ENGLISH) and check.wrong(ENGLISH, ENGLISH)


def test_too_small_a_sample_judges_nothing() -> None:
    check = LanguageCheck(PAIRS[: SMALLEST_SAMPLE - 1], ("en", "de"))
    assert not check.wrong(GERMAN, ENGLISH)
    LanguageCheck(PAIRS[: SMALLEST_SAMPLE - 1], ("de", "en")).verify()


@pytest.mark.parametrize(
    ("languages", "message"),
    [
        (("de", "en"), "the source side is said to be 'de' but reads like 'en'.*swapped"),
        (("en", "fr"), "the target side is said to be 'fr' but reads like 'de'"),
    ],
)
def test_a_corpus_in_other_languages_is_refused(languages: tuple[str, str], message: str) -> None:
    with pytest.raises(CorpusError, match=message):
        LanguageCheck(PAIRS, languages).verify()
    LanguageCheck(PAIRS, ("en", "tlh")).verify()  # nothing is known about Klingon


# --- held-out sentences ---------------------------------------------------------------------------------------------


def test_test_sentences_are_found_whatever_their_case_and_marks(tmp_path: Path) -> None:
    (tmp_path / "test.tsv").write_text("Where is the station?\tWo ist der Bahnhof?\nYes!\tJa!\n", encoding="utf-8")
    (tmp_path / "one-column.txt").write_text("Ein einzelner, deutscher Satz\n")
    held_out = read_held_out([tmp_path / "test.tsv", tmp_path / "one-column.txt"])
    assert len(held_out) == 3
    cleaner = Cleaner(CleanSettings(), None, held_out)
    assert cleaner.drops("WHERE IS  THE STATION", "etwas ganz anderes") == "held_out"
    assert cleaner.drops("something else altogether", "„wo ist der Bahnhof“!") == "held_out"
    assert cleaner.drops("a single sentence, isn't it", "ein einzelner deutscher Satz.") == "held_out"
    assert cleaner.drops("Where is the stationery?", "Wo ist der Bahnhofskiosk?") is None
    # short ones are no secret: only both sides together are
    assert cleaner.drops("Yes.", "Jawohl.") is None
    assert cleaner.drops("yes", "ja") == "held_out"
    assert Cleaner(CleanSettings(held_out_words=0), None, held_out).drops("Yes.", "Jawohl.") == "held_out"


def test_marks_alone_match_nothing() -> None:
    held_out = HeldOut()
    held_out.add("?!", "...")
    assert fold("?!") == ""
    assert not held_out.has("-", "a sentence", 0)


@pytest.mark.parametrize(
    ("content", "message"), [(None, "no such file"), (b"", "empty"), (b"a\tb\n\xff\n", "line 2 is not UTF-8")]
)
def test_held_out_files_that_cannot_be_read_are_refused(tmp_path: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / "t.tsv").write_bytes(content)
    with pytest.raises(CorpusError, match=rf"t\.tsv: .*{message}"):
        read_held_out([tmp_path / "t.tsv"])
