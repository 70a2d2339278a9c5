"""Whatever a text is made of, a model that copies gives it back unchanged: nothing lost, moved or added."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mobilenmt import Translator
from mobilenmt.runtime.hypothesis import Hypothesis, SearchOptions
from mobilenmt.runtime.reader import Reader
from mobilenmt.runtime.reading import Calls
from mobilenmt.runtime.retry import Retry
from mobilenmt.runtime.text.fold import Folded
from mobilenmt.runtime.text.target import Targets
from small_packs import manifest

WORDS = (
    "Go. |Stop!|What?!|word|Dr. Smith|3. Mai|z. B. |p.m. We|3.5|...|…| . . .|“Go.” |(See Fig. 3.) "
    "|他来了。|「走！」|यह।|؟|😀|:)|👩\u200d👧|e\u0301|https://example.org/a.b?c=1 |{{ name }}|<b>x</b>|</s>"
    "|;|, |a-|\x00|\ud800|\ufffd"
)
LAYOUT = (
    "- |* |• |1. |a) |> |>> |# |- [ ] |– |\t|\t\t| |  |\xa0|\u3000|\u200b|\ufeff|\xad"
    "|\n|\r\n|\n\n|\r|\x0b|\x0c|\x85|\u2028"
)
PARTS = [*WORDS.split("|"), *LAYOUT.split("|")]
TEXTS = st.lists(st.one_of(st.sampled_from(PARTS), st.text(max_size=6)), max_size=25).map("".join)
LANGUAGES = ("en", "de", "zh", "ar", "el", None)


class Spelling:
    """A token is a character."""

    def encode(self, text: str) -> list[int]:
        return [ord(character) for character in text]

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(map(chr, ids))

    def knows(self, text: str) -> bool:
        return True

    def pieces(self, ids: Sequence[int]) -> list[str]:
        return list(map(chr, ids))


class Copying:
    """The translation of ids are these ids. So few positions that long sentences must be cut."""

    max_length = 31

    def generate(self, sources: Sequence[Sequence[int]], limits: Any, options: SearchOptions) -> list[list[Hypothesis]]:
        return [[Hypothesis(tuple(source), -1.0, len(source) + 1)] * options.n_best for source in sources]

    def steps(self, source: Sequence[int], *, max_length: int) -> Iterator[int]:
        return iter(source)

    def search_briefly(self) -> AbstractContextManager[None]:
        return contextlib.nullcontext()


class Unfolded:
    """Leaves texts as they are."""

    def fold(self, text: str) -> Folded:
        return Folded(text)


def copying_translator(language: str | None) -> Translator:
    translator = Translator.__new__(Translator)
    engine, tokenizer = Copying(), Spelling()
    translator._arena, translator._since_release = True, 0
    translator.pack = SimpleNamespace(manifest=manifest(source_language=language))  # type: ignore[assignment]
    translator._engine, translator._tokenizer = engine, tokenizer
    translator._calls = Calls(translator.pack.manifest)
    translator._targets = Targets(lambda: b"", None)
    retry = Retry(tokenizer, engine.search_briefly)
    reader = Reader.of(translator.pack.manifest, tokenizer, translator._targets, retry)
    translator._reader = replace(reader, folder=Unfolded())  # type: ignore[arg-type]  what is in words is not layout
    return translator


TRANSLATORS = {language: copying_translator(language) for language in LANGUAGES}


def round_trip(text: str, language: str | None, split: bool | None) -> None:
    translator = TRANSLATORS[language]
    *_, last = translator.stream(text, split=split)
    for copy in (translator.translate(text, split=split), last):
        assert len(copy) == len(text) and copy.casefold() == text.casefold()  # titles come out in sentence case


ARGUMENTS = (TEXTS, st.sampled_from(LANGUAGES), st.sampled_from([None, True, False]))


@settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(*ARGUMENTS)
def test_a_copy_is_the_text(text: str, language: str | None, split: bool | None) -> None:
    round_trip(text, language, split)


@pytest.mark.slow
@settings(max_examples=10_000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(*ARGUMENTS)
def test_ten_thousand_copies_are_the_texts(text: str, language: str | None, split: bool | None) -> None:
    round_trip(text, language, split)


def test_sentences_of_scripts_without_spaces_get_one_where_the_target_needs_it() -> None:
    translator = copying_translator("zh")
    translator._tokenizer.decode = lambda ids: f"Satz{len(ids)}."  # type: ignore[method-assign]
    assert translator.translate("他来了。她走了。") == "Satz4. Satz4."
    assert list(translator.stream("他来了。她走了。"))[-1] == "Satz4. Satz4."
    assert translator.translate("他来了。 她走了。") == "Satz4. Satz4."
    assert translator.translate("他来了。\n她走了。") == "Satz4.\nSatz4."
