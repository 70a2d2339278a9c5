"""Beam search for outputs that hold phrases: the C core and the host of ONNX Runtime find what a reference finds.

The reference goes by the definition of dynamic beam allocation: what a path holds is read off the path each time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from random import Random
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from mobilenmt.runtime.errors import InputError
from mobilenmt.runtime.hypothesis import Phrases, SearchOptions
from mobilenmt.runtime.manifest import GenerationDefaults
from mobilenmt.runtime.native import LIBRARY
from mobilenmt.runtime.onnx.constrained import Phrasing
from mobilenmt.runtime.onnx.constrained import search as search_in_host
from mobilenmt.runtime.onnx.rows import Rules
from mobilenmt.runtime.translator import Translator
from native import NativeError
from native_core import ARGUMENT, Core, Model
from native_files import NONE, UINT16, Made
from native_reference import Reference
from places import ROOT

Path = tuple[int, ...]
Scores = Callable[[Path], npt.NDArray[np.float32]]
"""Log-probabilities of all tokens behind a path, -inf for what may not come next."""


def held(path: Path, phrases: Sequence[Path]) -> tuple[list[int], Path, bool]:
    """The phrases that stand in a path, the tokens at its end that begin another, whether its end ends a phrase.

    From left to right: a phrase counts where it is complete first, and what belongs to it is used up.
    """
    open_ = list(range(len(phrases)))
    begun: Path = ()
    whole = False
    for token in path:
        longest = (*begun, token)
        ends = [longest[i:] for i in range(len(longest))]
        begun, whole = (), False
        for end in ends:
            complete = [i for i in open_ if phrases[i] == end]
            if complete:
                open_.remove(complete[0])
                whole = True
                break
            if any(phrases[i][: len(end)] == end for i in open_):
                begun = end
                break
    return open_, begun, whole


def places(counts: list[int], beams: int) -> list[int]:
    """Places in the beam for each bank: an equal share; what is left over falls from bank to bank, twice around."""
    wanted = [beams // len(counts)] * len(counts)
    extra = beams - sum(wanted)
    given = [0] * len(counts)
    for _ in range(2):
        for bank in reversed(range(len(counts))):
            extra += wanted[bank]
            wanted[bank] = 0
            given[bank], extra = (both := min(counts[bank], given[bank] + extra)), given[bank] + extra - both
    return given


def search(
    scores: Scores, phrases: Sequence[Path], *, start: int, eos: int, limit: int, beams: int, wanted: int,
    penalty: float, continuing: Sequence[int] = (), forced: bool = False, prefix: Path = (), ngram: int = 0,
) -> list[tuple[Path, float]]:  # fmt: skip
    """The best that hold all phrases, end token included where there is one; or those that hold the most of them.

    Args:
        scores: the model.
        phrases: what has to be held.
        start, eos: ids.
        limit: tokens at most, without the start token.
        beams: hypotheses kept.
        wanted: hypotheses looked for.
        penalty: exponent of the length.
        continuing: ids that may not follow a phrase.
        forced: whether the last token at the limit is the end token.
        prefix: what outputs begin with; costs nothing.
        ngram: no so many tokens twice, but for tokens that lead on in a phrase.
    """
    total = sum(map(len, phrases))

    def bank(path: Path) -> int:
        open_, begun, _ = held(path, phrases)
        return total - sum(len(phrases[i]) for i in open_) + len(begun)

    beam: list[tuple[Path, float]] = [(prefix, 0.0)]
    done: list[tuple[Path, float]] = []
    for made in range(1 + len(prefix), limit + (0 if forced else 1)):
        pool: dict[Path, float] = {}
        everything: list[tuple[float, Path]] = []
        for path, score in beam:
            row = scores((start, *path)).copy()
            open_, begun, whole = held(path, phrases)
            if open_:
                row[eos] = -np.inf
            if whole:
                row[list(continuing)] = -np.inf
            leading = {phrases[i][len(begun)] for i in open_ if phrases[i][: len(begun)] == begun}
            whole_path = (start, *path)
            there = {whole_path[i : i + ngram] for i in range(len(whole_path) - ngram + 1)} if ngram else set()
            for token in range(len(row)):
                if (*whole_path[len(whole_path) - ngram + 1 :], token) in there and token not in leading:
                    row[token] = -np.inf
            row = (row + np.float32(score)).astype(np.float32)
            everything += [(float(value), (*path, token)) for token, value in enumerate(row) if value > -np.inf]
            for token in {int(row.argmax()), *leading}:
                if row[token] > -np.inf:
                    pool[(*path, token)] = float(row[token])
        order = {path: number for number, (path, _) in enumerate(beam)}

        def place(item: tuple[Path, float], order: dict[Path, int] = order) -> tuple[float, int, int]:
            return -item[1], order[item[0][:-1]], item[0][-1]

        everything.sort(key=lambda item: place((item[1], item[0])))
        pool.update({path: value for value, path in everything[: 2 * beams]})
        ranked = sorted(pool.items(), key=place)
        counts = [sum(path[-1] != eos and bank(path) == b for path, _ in ranked) for b in range(total + 1)]
        room = places(counts, beams)
        complete = [(path, score) for path, score in ranked if bank(tuple(t for t in path if t != eos)) == total]
        ending = [item for item in complete[: room[total] or 1] if item[0][-1] == eos]
        beam = []
        for path, score in ranked:
            if path[-1] != eos and room[bank(path)]:
                room[bank(path)] -= 1
                beam.append((path, score))
        done += [(path, score / made**penalty) for path, score in ending]
        if made == limit:
            done += [(path, score / made**penalty) for path, score in beam if bank(path) == total]
        best = sorted((score for _, score in done), reverse=True)
        best_running = beam[0][1] / made**penalty if beam else -np.inf
        if not beam or (len(best) >= wanted and best_running <= best[wanted - 1]):
            break
    if forced and beam and made == limit - 1 and (len(best) < wanted or best_running > best[wanted - 1]):
        done += [((*path, eos), score / limit**penalty) for path, score in beam if bank(path) == total]
    if not done:
        most = max(bank(path) for path, _ in beam)
        ends = (eos,) if forced and made == limit - 1 else ()
        kept = [(path, score) for path, score in beam if bank(path) == most]
        done = [((*path, *ends), score / len((*path, *ends)) ** penalty) for path, score in kept]
    return sorted(done, key=lambda item: -item[1])[:wanted]


def test_what_a_path_holds_counts_once() -> None:
    """The reference itself, on cases worked out by hand."""
    phrases = [(1, 1, 2), (1, 3), (3,)]
    assert held((1, 1, 1, 2), phrases) == ([1, 2], (), True)
    assert held((1, 1, 3), phrases) == ([0, 2], (), True)
    assert held((3, 1, 1), phrases) == ([0, 1], (1, 1), False)
    assert held((4, 1, 4), phrases) == ([0, 1, 2], (), False)
    assert held((3, 3, 1, 3), [(3,), (3,), (1, 3, 3)]) == ([2], (1, 3), False)
    assert places([9, 9, 9], 4) == [1, 1, 2]
    assert places([9, 1, 0], 4) == [3, 1, 0]
    assert places([1, 1, 9], 8) == [1, 1, 6]
    assert places([2, 3, 4, 9, 0], 4) == [0, 0, 0, 4, 0]


class Case:
    """A tiny model, a source, and phrases of one to three tokens that share beginnings, overlap and repeat."""

    def __init__(self, core: Core, seed: int) -> None:
        random, self.seed = Random(seed), seed
        self.forced, self.limit = (NONE, 0)[seed % 2], (12, 9, 16)[seed % 3]
        self.penalty, self.bad = (1.0, 0.6, 0.0)[seed // 2 % 3], (1,)
        files = Made(
            seed=seed, spread=0.03, output_bias=True, source=12, target=16, bad=self.bad, forced_eos=self.forced,
            lexical=UINT16 if seed % 4 == 1 else 0,
        ).files()  # fmt: skip
        self.model, self.reference = core.open_memory(*files), Reference(*files)
        self.source = [[3, 4, 5, 6, 7, 0], [5, 0]][seed % 2]
        tokens = random.sample(range(2, 14), 3)
        self.phrases = [tuple(random.choices(tokens, k=random.randint(1, 3))) for _ in range(1 + seed % 4)]
        while sum(map(len, self.phrases)) > self.limit - 2:
            self.phrases.pop()
        self.continuing = sorted(random.sample(range(2, 16), 4)) if seed // 2 % 2 else []
        self.mask = bytes(token in self.continuing for token in range(16))
        self.prefix: Path = ()
        self.ngram = 0
        self.reference.encode(self.source)
        extra = [token for phrase in self.phrases for token in phrase]
        self.reference.candidates = np.union1d(self.reference.candidates, extra)
        self.scores = cache(self._scores)

    def _scores(self, path: Path) -> npt.NDArray[np.float32]:
        row = self.reference.log_probabilities(path)
        row[list(self.bad)] = -np.inf
        return row

    def wanted(self, beams: int, wanted: int) -> list[tuple[Path, float]]:
        return search(
            self.scores, self.phrases, start=self.reference.start, eos=0, limit=self.limit - 1, beams=beams,
            wanted=wanted, penalty=self.penalty, continuing=self.continuing, forced=self.forced != NONE,
            prefix=self.prefix, ngram=self.ngram,
        )  # fmt: skip

    def rules(self) -> Case:
        """The same with rules beside the phrases: a prefix that holds one or begins one, no n-gram twice.

        The first phrase has to come twice, which the rule against n-grams would not allow.
        """
        self.ngram = 1 + self.seed % 3
        if sum(map(len, self.phrases)) + len(self.phrases[0]) <= self.limit - 2:
            self.phrases.append(self.phrases[0])
        self.prefix = ((), (13, *self.phrases[0]), self.phrases[-1][:1], (2, 2))[self.seed // 3 % 4]
        return self


BEAMS = ((2, 1), (4, 2), (7, 3))


@pytest.mark.parametrize("seed", range(16))
def test_the_core_finds_what_the_reference_finds(core: Core, seed: int) -> None:
    compare_core(Case(core, seed))


@pytest.mark.parametrize("seed", range(24))
def test_the_core_goes_by_other_rules_too(core: Core, seed: int) -> None:
    compare_core(Case(core, seed).rules())


def compare_core(case: Case) -> None:
    for beams, n_best in BEAMS:
        found = case.model.translate(
            [case.source], max_length=case.limit, beam_size=beams, n_best=n_best, length_penalty=case.penalty,
            phrases=[case.phrases], continuing=case.mask, alignment=1, prefix=case.prefix, no_repeat_ngram=case.ngram,
        )  # fmt: skip
        wanted = case.wanted(beams, n_best)
        assert wanted
        for (path, score), output in zip(wanted, found, strict=False):
            assert (*output.ids, *(0,) * (output.generated - len(output.ids))) == path
            assert output.score == pytest.approx(score, rel=1e-5)
            assert output.score == pytest.approx(output.token_scores.sum() / output.generated**case.penalty, rel=1e-4)


class Steps:
    """In place of decoder.onnx: the reference's log-probabilities, row by row."""

    def __init__(self, case: Case) -> None:
        self._case = case
        self._paths: list[Path] = []

    def step(self, tokens: Sequence[int]) -> npt.NDArray[np.float32]:
        before = self._paths or [()] * len(tokens)
        self._paths = [(*path, token) for path, token in zip(before, tokens, strict=True)]
        return np.stack([self._case.reference.log_probabilities(path) for path in self._paths])

    def follow(self, parents: Sequence[int]) -> None:
        self._paths = [self._paths[parent] for parent in parents]


@pytest.mark.parametrize("seed", range(16))
def test_the_host_of_onnx_finds_what_the_reference_finds(core: Core, seed: int) -> None:
    compare_host(Case(core, seed))


@pytest.mark.parametrize("seed", range(24))
def test_the_host_of_onnx_goes_by_other_rules_too(core: Core, seed: int) -> None:
    compare_host(Case(core, seed).rules())


def compare_host(case: Case) -> None:
    rules = Rules(case.prefix, case.bad, (), case.ngram, 0, 0)
    own = GenerationDefaults(forced_eos_token_id=None if case.forced == NONE else 0)
    for beams, n_best in BEAMS:
        found = search_in_host(
            Steps(case), case.reference.start, Phrasing(case.phrases, case.mask), rules, own,  # type: ignore[arg-type]
            beams=beams, wanted=n_best, limit=case.limit - 1, penalty=case.penalty, check=lambda: None,
        )  # fmt: skip
        found.sort(key=lambda item: -item[0])
        for (path, score), (own_score, own_path) in zip(case.wanted(beams, n_best), found, strict=False):
            assert own_path == path
            assert own_score == pytest.approx(score, rel=1e-5)


def test_a_phrase_wins_over_the_rule_against_repeats_and_a_prefix_counts(tiny: Model) -> None:
    """Asked for twice, a phrase comes twice; what is in the prefix need not come again."""
    request: dict[str, Any] = {"max_length": 20, "beam_size": 5, "no_repeat_ngram": 1}
    (twice,) = tiny.translate([[3, 4, 5, 0]], phrases=[[(7, 8), (7, 8)]], **request)
    places = [i for i in range(len(twice.ids)) if twice.ids[i : i + 2] == (7, 8)]
    assert len(places) == 2
    others = [token for token in twice.ids if token not in (7, 8)]
    assert len(set(others)) == len(others)  # all the rest goes by the rule
    (begun,) = tiny.translate([[3, 4, 5, 0]], phrases=[[(7, 8)]], prefix=(9, 7, 8), **request)
    assert begun.ids[:3] == (9, 7, 8)
    assert begun.ids.count(7) == begun.ids.count(8) == 1


def contains(ids: Sequence[int], phrase: Sequence[int]) -> bool:
    return any(tuple(ids[i : i + len(phrase)]) == tuple(phrase) for i in range(len(ids)))


@pytest.fixture(scope="module")
def tiny(core: Core) -> Model:
    return core.open_memory(
        *Made(spread=0.03, output_bias=True, positions=30, lexical=UINT16, source=12, target=16).files()
    )


def test_sentences_keep_their_own_phrases_whatever_stands_beside_them(tiny: Model) -> None:
    sources = [[3, 4, 5, 0], [5, 0], [6, 7, 8, 9, 0], [0]] * 3
    phrases = [[(7, 8)], [], [(9,), (9,), (12, 3, 2)], [(2, 3)]] * 3
    request: dict[str, Any] = {"max_length": 14, "beam_size": 5, "n_best": 2, "alignment": 1}
    alone = [
        output
        for ids, of in zip(sources, phrases, strict=True)
        for output in tiny.translate([ids], phrases=[of], **request)
    ]
    for rows in (1, 5, 64):
        assert tiny.translate(sources, phrases=phrases, rows=rows, **request) == alone
    for output, of in zip(alone[::2], phrases, strict=True):
        assert all(contains(output.ids, phrase) for phrase in of)
    assert tiny.translate(sources, phrases=[()] * 12, **request) == tiny.translate(sources, **request)


def test_what_continues_a_word_does_not_follow_a_phrase(tiny: Model) -> None:
    request: dict[str, Any] = {"max_length": 14, "beam_size": 5, "phrases": [[(7, 8)]]}
    (free,) = tiny.translate([[3, 4, 5, 0]], **request)
    after = free.ids[free.ids.index(8) + 1] if free.ids[-1] != 8 else 5
    (other,) = tiny.translate([[3, 4, 5, 0]], continuing=bytes(i == after for i in range(16)), **request)
    assert contains(other.ids, (7, 8))
    assert not contains(other.ids, (7, 8, after))


def test_where_there_is_no_way_to_a_phrase_the_rest_is_held(tiny: Model) -> None:
    request: dict[str, Any] = {"max_length": 12, "beam_size": 5, "forbidden": [8]}
    (found,) = tiny.translate([[3, 4, 5, 0]], phrases=[[(9, 7), (8,)]], **request)
    assert contains(found.ids, (9, 7))
    assert found.generated == 11


@pytest.mark.parametrize(
    ("phrases", "beams", "message"),
    [
        ([[(7,)]], 1, "beam_size of 2"),
        ([[(7,)] * 65], 2, "65 phrases; 64 are the most"),
        ([[(7,), ()]], 2, "phrase 1 of sentence 0 is empty"),
        ([[(7,) * 9]], 2, "do not fit max_length 10"),
        ([[(7, 16)]], 2, "16 is outside the vocabulary"),
        ([[(7, 0)]], 2, "0 is the end token"),
    ],
)
def test_phrases_that_cannot_be_are_told(tiny: Model, phrases: Any, beams: int, message: str) -> None:
    with pytest.raises(NativeError, match=message) as caught:
        tiny.translate([[3, 4, 0]], max_length=10, beam_size=beams, phrases=phrases)
    assert caught.value.status == ARGUMENT


@pytest.fixture(scope="module", params=["native", "onnx"])
def shipped(request: pytest.FixtureRequest) -> Translator:
    if request.param == "native" and not LIBRARY.is_file():
        pytest.skip("the C core was not compiled")
    return Translator(ROOT / "models" / "en-de", engine=request.param)


@pytest.mark.parametrize(
    ("phrases", "beams", "message"),
    [
        ((((7,),),), 1, "beam_size must be at least 2"),
        ((((7,),) * 65,), 2, "64 phrases, not 65"),
        ((((7,), ()),), 2, "a phrase is empty"),
        ((((7,) * 9,),), 2, "phrases of 9 tokens do not fit max_length 10"),
        ((((8000,),),), 2, "phrase ids must be from 0 to 7999"),
        ((((0,),),), 2, "not the end token"),
        ((), 2, "1 sources need phrases for as many, not for 0"),
    ],
)
def test_engines_tell_of_phrases_that_cannot_be(shipped: Translator, phrases: Any, beams: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        shipped._engine.generate([[5, 6]], [10], SearchOptions(beams, phrases=Phrases(phrases)))


def test_engines_hold_phrases_that_the_shortlist_lacks(shipped: Translator) -> None:
    ids = shipped._tokenizer.encode("The dog closed the door of the house.")
    phrases = tuple(tuple(shipped._tokenizer.encode(word)) for word in ("Donau", "Arbeitszimmer"))
    options = SearchOptions(6, 2, phrases=Phrases((phrases, ())))
    (found, free) = shipped._engine.generate([ids, ids], [40, 40], options)
    for output in found:
        text = shipped._tokenizer.decode(output.ids)
        assert "Donau" in text
        assert "Arbeitszimmer" in text
    plain = shipped._engine.generate([ids], [40], SearchOptions(6, 2))[0]
    assert free[0].ids == plain[0].ids  # of ONNX Runtime's two graphs; scores differ in the third place


def test_engines_score_the_tokens_of_phrases(shipped: Translator) -> None:
    """Those that the shortlist lacks, and those that the rule against repeats would not allow, too."""
    ids = shipped._tokenizer.encode("The dog closed the door of the house.")
    word = tuple(shipped._tokenizer.encode("Arbeitszimmer"))
    prefix = shipped._tokenizer.encode("Der Hund")
    options = SearchOptions(6, 1, token_scores=True, no_repeat_ngram=2, phrases=Phrases(((word, word),)))
    ((found,),) = shipped._engine.generate([ids], [60], options, prefixes=[prefix])
    assert list(found.ids[: len(prefix)]) == prefix
    assert shipped._tokenizer.decode(found.ids).count("Arbeitszimmer") == 2
    assert found.token_scores is not None
    penalty = shipped.pack.manifest.generation.length_penalty
    assert sum(found.token_scores) / found.generated**penalty == pytest.approx(found.score, rel=0.02)


def test_both_engines_find_nearly_the_same(core: Core) -> None:
    """They quantize differently: the score of a sentence differs in the second place."""
    if not LIBRARY.is_file():
        pytest.skip("the C core was not compiled")
    scores: list[list[float]] = []
    for engine in ("native", "onnx"):
        translator = Translator(ROOT / "models" / "en-de", engine=engine)
        sources = [translator._tokenizer.encode(text) for text in ("It is raining.", "I would like to buy a book.")]
        phrases = tuple((tuple(translator._tokenizer.encode(word)),) for word in ("Donau", "Buch"))
        found = translator._engine.generate(sources, [30, 30], SearchOptions(6, 1, phrases=Phrases(phrases)))
        scores.append([items[0].score for items in found])
    assert scores[0] == pytest.approx(scores[1], abs=0.05)
