"""525 written sentences with things to keep, by the shipped pack: in every one each of them is there, and in place.

The check here knows nothing of placeholders. *In place* means: the spans stand in the order of the source; what
touched one there (a bracket, a quote, a letter) touches it still; one that began the sentence does not end it, and the
other way round, where at least three words stood on the other side; and nothing stands twice. The print of a run
(``pytest -s -m slow tests/runtime/text/test_kept_cases.py``) is where the figures in the documentation come from.

The second model is the same pack taken for one of which nothing is known: with the forms of placeholders for such
models: it was trained to copy numbers, not as placeholders, and none of the others. The third has only those that it
never saw in training, as a model of OPUS-MT has: neither tags nor figures.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from marked import unmarked
from mobilenmt.runtime.text.forms import DEFAULT_FORMS, TRAINED_FORM, Form, Placeholders
from mobilenmt.runtime.text.keeper import Keeper, Output, Result
from mobilenmt.runtime.text.kept import Rules, find
from mobilenmt.runtime.translator import Translator
from places import ROOT

_OPEN, _CLOSE = "([{\"'„“‚‘»«›", ")]}\"'“”‘’«»›"
_QUOTES = "\"'„“”‚‘’«»‹›"
CASES = [
    unmarked(line) for line in (Path(__file__).parent / "data" / "kept.txt").read_text(encoding="utf-8").splitlines()
]
OURS = Placeholders((TRAINED_FORM,))
UNKNOWN = Placeholders()
NOTHING = Rules(())  # the translator itself must not protect what stands for spans here


class Strange(Placeholders):
    """Only forms that the shipped model was not trained on."""

    @property
    def tried(self) -> tuple[Form, ...]:
        return DEFAULT_FORMS[1:]


KINDS = pytest.mark.parametrize("placeholders", [OURS, UNKNOWN, Strange()], ids=["ours", "unknown", "strange"])


def test_the_third_model_has_no_form_that_was_trained() -> None:
    assert Strange().tried == ("[#]", DEFAULT_FORMS[2])
    assert TRAINED_FORM not in Strange().tried and "71046" in DEFAULT_FORMS[0]


@pytest.fixture(scope="module")
def translator() -> Translator:
    return Translator(ROOT / "models" / "en-de")


def run(translator: Translator, placeholders: Placeholders, texts: list[str]) -> list[Result]:
    def translate(texts: list[str], wanted: int) -> list[list[Output]]:
        found = translator.translate_batch(texts, beam_size=wanted, n_best=wanted, keep=NOTHING, split=False)
        return [[Output(item.text) for item in (best, *best.alternatives)] for best in found]

    return Keeper(translate, placeholders=placeholders).run(texts)


def faults(source: str, spans: list[tuple[int, int]], output: str) -> list[str]:
    """What is wrong with a translation, in words."""
    wrong = []
    at = 0
    for start, end in spans:
        body = source[start:end]
        place = output.find(body, at)
        if place < 0:
            return [*wrong, f"{body} is {'misplaced' if body in output else 'missing'}"]
        if output.count(body) != source.count(body):
            wrong.append(f"{body} stands {output.count(body)} times")
        at = place + len(body)
        if not _touches(source[max(0, start - 1) : start], output[max(0, place - 1) : place], _OPEN):
            wrong.append(f"{body} has lost what stood before it")
        if not _touches(source[end : end + 1], output[at : at + 1], _CLOSE):
            wrong.append(f"{body} has lost what stood behind it")
        if not source[:start].strip() and len(source[end:].split()) >= 3 and not output[at:].strip(" .!?"):
            wrong.append(f"{body} has moved to the end")
        if not source[end:].strip(" .!?") and len(source[:start].split()) >= 3 and not output[:place].strip():
            wrong.append(f"{body} has moved to the beginning")
    return wrong


def _touches(wanted: str, there: str, brackets: str) -> bool:
    if wanted and wanted in brackets:
        return there == wanted or (wanted in _QUOTES and bool(there) and there in _QUOTES)
    return there.isalnum() if wanted.isalnum() else not there.isalnum()


def report(name: str, cases: list[tuple[str, list[tuple[int, int]]]], results: list[Result]) -> tuple[int, int]:
    """Print how many cases are right; (wrong ones, wrong ones without a flag)."""
    wrong = unflagged = 0
    for (source, spans), result in zip(cases, results, strict=True):
        found = faults(source, spans, result.text)
        if found:
            wrong += 1
            unflagged += not result.flags
            print(f"{source!r} -> {result.text!r} {result.flags}: {'; '.join(found)}")
    flags = Counter(flag for result in results for flag in result.flags)
    print(f"{name}: {len(cases) - wrong} of {len(cases)} right, {wrong - unflagged} wrong and flagged; {dict(flags)}")
    return wrong, unflagged


def test_the_rules_find_the_spans_of_the_cases_and_no_others() -> None:
    """So that the cases test what they say; spans may be found in several pieces."""
    assert len(CASES) >= 500
    for source, spans in CASES:
        found = find(source)
        for start, end in spans:
            covered = {at for k in found for at in range(k.start, k.end)}
            assert all(at in covered or source[at] == " " for at in range(start, end)), source
        assert all(any(start <= k.start and k.end <= end for start, end in spans) for k in found), source


@KINDS
def test_a_sample_of_the_cases_is_kept(translator: Translator, placeholders: Placeholders) -> None:
    cases = CASES[::9]
    wrong, unflagged = report("sample", cases, run(translator, placeholders, [source for source, _ in cases]))
    assert (wrong, unflagged) == (0, 0)


@pytest.mark.slow
@KINDS
def test_99_in_100_of_all_cases_are_kept(translator: Translator, placeholders: Placeholders) -> None:
    wrong, unflagged = report("all", CASES, run(translator, placeholders, [source for source, _ in CASES]))
    assert wrong <= len(CASES) // 100
    assert unflagged == 0


@pytest.mark.parametrize(
    ("output", "fault"),
    [
        ("Nimm (a.txt) und b.txt!", None),
        ("Nimm a.txt und b.txt!", "lost what stood before"),
        ("Nimm (b.txt) und a.txt!", "misplaced"),
        ("Nimm (a.txt) und!", "missing"),
        ("Nimm (a.txt) und b.txt, b.txt!", "2 times"),
        ("Nimm (a.txt) und b.txts!", "behind"),
    ],
)
def test_the_check_of_this_file_can_fail(output: str, fault: str | None) -> None:
    source, spans = unmarked("Take (⟪a.txt⟫) and ⟪b.txt⟫!")
    found = faults(source, spans, output)
    assert found == [] if fault is None else any(fault in item for item in found)
