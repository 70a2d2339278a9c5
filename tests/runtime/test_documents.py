"""A call on whole documents, with details, a time limit and a callback."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from mobilenmt import DeadlineError, Glossary, InputError, Rules, Translation, Translator
from mobilenmt.runtime.hypothesis import Hypothesis, SearchOptions
from mobilenmt.runtime.native import LIBRARY
from mobilenmt.runtime.passage import Passage
from mobilenmt.runtime.reading import Stretch, shared
from mobilenmt.runtime.text.kept import default_rules
from mobilenmt.runtime.text.markup.keeping import keeping
from places import ROOT
from timing import cpu_seconds

NO_CORE = None if LIBRARY.is_file() else "the C core was not compiled"
NATIVE = pytest.param("native", marks=pytest.mark.skipif(NO_CORE is not None, reason=NO_CORE or ""))


@pytest.fixture(scope="module", params=[NATIVE, "onnx"])
def shipped(request: pytest.FixtureRequest) -> Translator:
    return Translator(ROOT / "models" / "en-de", engine=request.param)


@pytest.fixture
def asked(shipped: Translator, monkeypatch: pytest.MonkeyPatch) -> list[SearchOptions]:
    """What the engine is asked for."""
    seen: list[SearchOptions] = []
    generate = shipped._engine.generate

    def spy(sources: Any, limits: Any, options: SearchOptions, *rest: Any) -> list[list[Hypothesis]]:
        seen.append(options)
        return generate(sources, limits, options, *rest)

    monkeypatch.setattr(shipped._engine, "generate", spy)
    return seen


# -- details ----------------------------------------------------------------------------------------------------------


def words(found: Translation, text: str, sentence: int = 0) -> list[tuple[str, str]]:
    return [(text[a:b], found.text[c:d]) for a, b, c, d in found.sentences[sentence].links]


def test_without_details_nothing_is_asked_of_the_engine(shipped: Translator, asked: list[SearchOptions]) -> None:
    text = "The dog is in the house. I am hungry."
    plain = shipped.translate_batch([text])[0]
    assert asked and not any(options.token_scores or options.alignment for options in asked)
    assert all(item.confidence is None and item.links == () for item in plain.sentences)
    detailed = shipped.translate_batch([text], details=True)[0]
    assert asked[-1].token_scores and asked[-1].alignment
    assert (detailed.text, detailed.score, detailed.tokens) == (plain.text, plain.score, plain.tokens)


def test_links_and_confidence_are_of_the_whole_text_and_translation(shipped: Translator) -> None:
    text = "- I am hungry.  The dog is in the house.\n\tThank you."
    found = shipped.translate_batch([text], details=True)[0]
    assert len(found.sentences) == 3
    for item in found.sentences:
        assert item.confidence is not None and 0 < item.confidence < 1
        assert item.links == tuple(sorted(set(item.links)))
        for a, b, c, d in item.links:
            assert item.source[0] <= a < b <= item.source[1] and item.target[0] <= c < d <= item.target[1]
            for words_of, start, end in ((text, a, b), (found.text, c, d)):
                assert words_of[start:end] == words_of[start:end].strip() and not words_of[start - 1].isalnum()
    assert ("dog", "Hund") in words(found, text, 1) and ("house.", "Haus.") in words(found, text, 1)
    assert found.to_dict()["sentences"][1]["links"] == [list(link) for link in found.sentences[1].links]
    assert found.to_dict()["sentences"][1]["confidence"] == found.sentences[1].confidence


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        ("THE DOG IS IN THE HOUSE.", [("DOG", "HUND"), ("HOUSE.", "HAUS.")]),
        ("The dog is in Zu\u0308rich.", [("dog", "Hund"), ("Zu\u0308rich.", "Zürich.")]),
        ("The  dog\u00a0is in the of\ufb01ce.", [("dog", "Hund"), ("of\ufb01ce.", "Büro.")]),
        ("The dog writes to max@example.com today.", [("dog", "Hund"), ("max@example.com", "max@example.com")]),
        ("I love the dog 😍!", [("dog", "Hund")]),
    ],
)
def test_links_are_of_the_sentence_as_it_was_given(
    shipped: Translator, text: str, pairs: list[tuple[str, str]]
) -> None:
    found = shipped.translate_batch([text], details=True)[0]
    linked = words(found, text)
    for source, target in pairs:
        assert any(a.strip(".,") == source.strip(".") and b.strip(".,!") == target.strip(".") for a, b in linked), (
            linked
        )


def test_confidence_tells_good_from_rubbish(shipped: Translator) -> None:
    good, bad = shipped.translate_batch(["The dog is in the house.", "Xq vlorp zzkt wub frel."], details=True)
    assert good.sentences[0].confidence is not None and bad.sentences[0].confidence is not None
    assert bad.sentences[0].confidence < good.sentences[0].confidence


def test_copied_text_and_packs_without_calibration_have_none(shipped: Translator, tiny_pack: Path) -> None:
    copied = shipped.translate_batch(["max@example.com"], details=True)[0]
    assert all(item.confidence is None and item.links == () for item in copied.sentences)
    tiny = Translator(tiny_pack).translate_batch(["the dog sees"], details=True)[0]
    assert [(item.confidence, item.links) for item in tiny.sentences] == [(None, ())]


def test_alternatives_have_details_too(shipped: Translator) -> None:
    text = "The dog is in the house."
    found = shipped.translate_batch([text], n_best=3, details=True)[0]
    assert len(found.alternatives) == 2
    for item in found.alternatives:
        assert item.sentences[0].confidence is not None and ("dog", "Hund") in words(item, text)


def test_a_lost_span_is_put_back_by_links_which_are_asked_for_from_the_second_attempt_on(shipped: Translator) -> None:
    tokenizer = shipped._tokenizer
    before, taste, behind = (tokenizer.encode(words) for words in ("Drücken Sie die", "Taste", "jetzt."))
    lost = (*before, *taste, *behind)
    asked: list[bool] = []

    def find(sources: Sequence[Sequence[int]], how: SearchOptions) -> list[list[Hypothesis]]:
        asked.append(how.alignment)
        found = []
        for source in sources:
            key = next((place for place, piece in enumerate(tokenizer.pieces(source)) if "key" in piece), len(source))
            none = len(source)
            places = (*[none] * len(before), *[key] * len(taste), *[none] * len(behind))
            alignment = places if how.alignment else None
            found.append([Hypothesis(lost, -0.1, len(lost) + 1, (), None, alignment)] * how.n_best)
        return found

    passage = Passage(shipped._reader, find, SearchOptions())
    text = "Press the key {name} now."
    rendering = passage.run([text])[0][0]
    assert asked[0] is False and asked[1:] and all(asked[1:])
    assert rendering.flags == ("placed",) and rendering.text == "Drücken Sie die Taste {name} jetzt."
    assert rendering.links == () and rendering.confidence is None  # nobody asked for them
    passage.run(["Press the key now."])
    assert asked[-1] is False  # another run begins anew


# -- documents --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("format", "text", "wanted"),
    [
        ("html", "<p>The <b>dog</b> is in the house.</p>", "<p>Der <b>Hund</b> ist im Haus.</p>"),
        ("markdown", "# The *house*\r\n\r\n- I am hungry.\r\n", "# Das *Haus*\r\n\r\n- Ich bin hungrig.\r\n"),
        (
            "srt",
            "1\n00:00:01,000 --> 00:00:02,000\nThe <i>dog</i> is in the house.\n",
            "1\n00:00:01,000 --> 00:00:02,000\nDer <i>Hund</i> ist im Haus.\n",
        ),
        (
            "vtt",
            "WEBVTT\n\n00:01.000 --> 00:02.000\nI am hungry.\n",
            "WEBVTT\n\n00:01.000 --> 00:02.000\nIch bin hungrig.\n",
        ),
        ("text", "I am hungry.\n", "Ich bin hungrig.\n"),
    ],
)
def test_documents(shipped: Translator, format: str, text: str, wanted: str) -> None:
    assert shipped.translate(text, format=format) == wanted
    found = shipped.translate_batch([text, text], format=format)
    assert [item.text for item in found] == [wanted, wanted]


def test_the_words_of_a_document_are_those_without_tags(shipped: Translator, asked: list[SearchOptions]) -> None:
    plain = "I would like a cup of coffee, please."
    marked = "I would <i>like</i> a cup of <b>coffee</b>, please."
    bare = shipped.translate_batch([f"<p>{plain}</p>"], format="html")[0]
    assert not any(options.alignment for options in asked)  # no marks: no links are needed
    found = shipped.translate_batch([f"<p>{marked}</p>"], format="html")[0]
    assert any(options.alignment for options in asked)
    assert found.text.replace("<i>", "").replace("</i>", "").replace("<b>", "").replace("</b>", "") == bare.text
    assert "<b>Kaffee</b>" in found.text
    one = shipped.translate_batch([plain])[0]
    assert (bare.text, bare.score, bare.tokens) == (f"<p>{one.text}</p>", one.score, one.tokens)
    assert bare.sentences == ()


def test_flags_of_all_units_are_told(shipped: Translator) -> None:
    long = "very " * 300 + "good"
    found = shipped.translate_batch([f"<p>The dog.</p><p>{long}</p>"], format="html")[0]
    assert "split" in found.flags


def test_what_a_document_says_stays_is_kept_in_its_unit_alone(shipped: Translator) -> None:
    page = "<p>The <code>dog</code> is in the house.</p><p>The dog is in the house.</p>"
    found = shipped.translate(page, format="html")
    assert "<code>dog</code>" in found.split("</p>")[0]
    assert found.split("</p>")[1] == "<p>Der Hund ist im Haus."
    assert "git push" in shipped.translate("You should run `git push` now.", format="markdown")


PAGE = [
    "<p>Open <code>a_b</code> in the house.</p>",
    "<p>The <code>dog</code> is in the house.</p>",
    "<p>The dog is in the house.</p>",
    "<p>Open the dog and <code>a_b</code> now.</p>",
    "<p>The <code>house</code> and the <code>dog</code> are here.</p>",
    "<p>I am hungry.</p>",
    "<p><code>&nbsp;</code> The <code>cat</code> is here.</p>",
    '<p translate="no">The cat.</p>',
    "<p>The <code>of\ufb01ce</code> is big. The office is here.</p>",
    "<p>The office is <b>here</b>.</p>",
    "<p>Open the <code>of</code> file.</p>",
]


def test_units_that_are_searched_together_become_what_each_becomes_alone(shipped: Translator) -> None:
    alone = [shipped.translate(part, format="html") for part in PAGE]
    for order in (PAGE, PAGE[::-1], PAGE[3:] + PAGE[:3], PAGE * 3):
        found = shipped.translate("\n".join(order), format="html").split("\n")
        assert found == [alone[PAGE.index(part)] for part in order]


def test_units_with_words_of_their_own_are_searched_at_once(
    shipped: Translator, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    generate = shipped._engine.generate

    def spy(sources: Any, *rest: Any) -> list[list[Hypothesis]]:
        seen.append(len(sources))
        return generate(sources, *rest)

    monkeypatch.setattr(shipped._engine, "generate", spy)
    page = "".join(f"<p>The <code>f{index:02}</code> is in the house.</p>" for index in range(30))
    found = shipped.translate(page, format="html")
    assert all(f"<code>f{index:02}</code>" in found for index in range(30))
    assert seen[0] == 30 and len(seen) <= 4


def test_finding_what_goes_together_takes_linear_time() -> None:
    def stretches(count: int) -> list[Stretch]:
        return [Stretch(f"w{index} {'a ' * 20}", (f"w{index}",)) for index in range(count)]

    few, many = stretches(1000), stretches(4000)
    assert cpu_seconds(lambda: shared(many, str), 3) < 12 * cpu_seconds(lambda: shared(few, str), 3)
    assert max(len(stretch.kept) for stretch in shared(many, str)) <= 64


def test_only_what_stands_in_no_other_is_shared() -> None:
    found = shared([Stretch("a x", ("a",)), Stretch("b y", ("b",)), Stretch("a b", ("b",)), Stretch("c", ())], str)
    assert [set(item.kept) for item in found] == [{"a", "b"}, {"a", "b"}, {"b"}, set()]


def test_a_rule_finds_words_by_themselves_and_the_others_go_on() -> None:
    rules = keeping(None, ["dog", "x = 1"])
    text = "The dog of the dogma: x = 1, or max@example.com."
    assert [(text[k.start : k.end], k.rule) for k in rules.find(text)] == [
        ("dog", "markup"),
        ("x = 1", "markup"),
        ("max@example.com", "email"),
    ]
    assert rules.find("plain words") == default_rules().find("plain words") == []
    assert [k.rule for k in keeping(Rules(()), ["dog"]).find(text)] == ["markup"]


def test_terms_and_rules_hold_in_documents(shipped: Translator) -> None:
    terms = Glossary.from_lines(["dog\tKöter"])
    assert "<b>Köter</b>" in shipped.translate("<p>The <b>dog</b> is here.</p>", format="html", glossary=terms)
    assert "house" in shipped.translate("# The house", format="markdown", keep=default_rules().adding("w", "house"))


def test_wrong_use_of_formats_is_told(shipped: Translator) -> None:
    for wrong in ("docx", "", "HTML", 3, ["html"]):
        with pytest.raises(InputError, match="there is no format"):
            shipped.translate_batch([], format=wrong)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="n_best must be 1"):
        shipped.translate_batch(["<p>a</p>"], format="html", n_best=2)
    with pytest.raises(InputError, match="unwrap is for plain text"):
        shipped.translate("<p>a</p>", format="html", unwrap=True)
    with pytest.raises(InputError, match="stream"):
        list(shipped.stream("<p>a</p>", format="html"))
    assert list(shipped.stream("I am hungry.", format="text"))[-1] == "Ich bin hungrig."
    with pytest.raises(TypeError, match="formt"):
        shipped.translate("a", formt="html")  # type: ignore[call-arg]


# -- time and progress -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["text", "html"])
def test_progress_is_told_from_nothing_to_all(tiny_pack: Path, format: str) -> None:
    translator = Translator(tiny_pack)
    text = "\n\n".join(["<p>the dog sees</p>" if format == "html" else "the dog sees"] * 150)
    told: list[tuple[int, int]] = []
    found = translator.translate(text, format=format, progress=lambda done, count: told.append((done, count)))
    assert told == [(0, 150), (64, 150), (128, 150), (150, 150)]
    assert found == translator.translate(text, format=format)


def test_progress_is_told_for_a_text_without_words(tiny_pack: Path) -> None:
    told: list[tuple[int, int]] = []
    assert Translator(tiny_pack).translate("---", progress=lambda done, count: told.append((done, count))) == "---"
    assert told == [(0, 0)]


def test_what_a_callback_raises_comes_through_and_the_translator_goes_on(tiny_pack: Path) -> None:
    translator = Translator(tiny_pack, threads=2)
    text = "the dog sees\n" * 200
    expected = translator.translate(text)
    calls: list[int] = []

    def stop(done: int, count: int) -> None:
        calls.append(done)
        if done:
            raise LookupError("enough")

    with pytest.raises(LookupError, match="enough"):
        translator.translate(text, progress=stop)
    assert calls == [0, 64]
    assert translator.translate(text) == expected


@pytest.mark.parametrize(
    "translate",
    [
        lambda translator, text: translator.translate(text, time_limit=0.2),
        lambda translator, text: translator.translate(text, time_limit=0.2, format="html"),
        lambda translator, text: translator.translate_batch([text] * 2, time_limit=0.2, beam_size=4),
    ],
)
def test_a_call_ends_when_its_time_is_over(shipped: Translator, translate: Callable[[Translator, str], object]) -> None:
    text = "I would like a cup of coffee, please. " * 3000
    begun = time.monotonic()
    with pytest.raises(DeadlineError, match=r"not done in the 0\.2 seconds"):
        translate(shipped, text)
    assert time.monotonic() - begun < 5  # a minute without a limit
    assert shipped.translate("I am hungry.", time_limit=60) == "Ich bin hungrig."


@pytest.mark.parametrize("limit", [0, -1, float("nan"), float("inf"), "1", True])
def test_a_time_that_is_none_is_told(tiny_pack: Path, limit: object) -> None:
    translator = Translator(tiny_pack)
    with pytest.raises(InputError, match="time_limit must be a number of seconds above 0"):
        translator.translate("the dog", time_limit=limit)  # type: ignore[arg-type]


def test_a_callback_that_cannot_be_called_is_told(tiny_pack: Path) -> None:
    wrong: Sequence[int] = [1]
    with pytest.raises(InputError, match="progress must be something to call"):
        Translator(tiny_pack).translate("the dog", progress=wrong)  # type: ignore[arg-type]
