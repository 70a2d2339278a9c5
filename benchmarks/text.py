"""Text handling of a pack: ``python -m benchmarks.text guards|case|pairs|unicode|cost [FILE...]``.

guards: single words of the sources in FILEs (TSV of source and reference), and strings of the kinds that people report
to translators: how many loop, grow beyond three times their source, come out too short, are given back.
case: chrF of sentences IN CAPITALS and As Titles, as they are and through sentence case, English to German.
pairs: of the sources in FILEs with brackets or quotes, how many lose one, and BLEU, without that guard and with it.
unicode: random strings over all planes: whether U+FFFD shows where the source has none.
cost: time that everything around tokenizer and search adds to a sentence; FILE has one a line.
"""

from __future__ import annotations

import argparse
import random
import re
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from mobilenmt import Translator
from mobilenmt.runtime.guard import is_degenerate
from mobilenmt.runtime.hypothesis import GREEDY, usual_length
from mobilenmt.runtime.reading import check_call
from mobilenmt.runtime.retry import Retry
from mobilenmt.runtime.text.case import Case
from mobilenmt.runtime.text.letters import breaks_a_pair, has_pair
from mobilenmt.runtime.tokenizer import clean

_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
_MOST_TIMES = 3
_SPANS = ("12:30", "{name}", "max@example.com", "3.5 km", "https://example.org/a?b=1")
_FREE = 12  # characters that a translation may always have: "shy" is "schüchtern"

PIECES = [
    *(
        "hello",
        "STOP",
        "Open The Window",
        "no no no no",
        "ha ha ha ha ha ha",
        "OK",
        "I",
        "a",
        "the",
        "yes!!!",
        "why???",
    ),
    *("max@example.com", "https://example.org/a/b?x=1&y=2", "{{ user.name }}", "%(count)d", "%s", "C:\\temp\\a.txt"),
    *(
        "<b>bold</b>",
        "<br/>",
        "&nbsp;",
        "`code`",
        "#tag",
        "@name",
        "😀",
        "👍🏽",
        "❤\ufe0f",
        "→",
        "你好",
        "Привет",
        "مرحبا",
    ),
    *(
        "3.5 km",
        "2026-11-29",
        "12:30",
        "$1,000.50",
        "50 %",
        "---",
        "***",
        "\n",
        "\t",
        "\u00a0",
        "\u200b",
        "“",
        "”",
        "…",
    ),
    *(
        "Guten Morgen",
        "Ich bin müde.",
        "Bonjour à tous",
        "¿Qué tal?",
        "asdfghjkl",
        "aaaaaaaaaaaa",
        "xXxXxX",
        "lol",
        "C++",
    ),
    *(
        "NATO",
        "U.S.",
        "Dr. Smith",
        "e.g.",
        "it's",
        "don't",
        "The man is here.",
        "Where is the station?",
        "HELP ME PLEASE",
    ),
]


def odd_strings(count: int, seed: int = 1) -> Iterator[str]:
    """Strings of what people translate besides clean sentences: each piece alone, then some of them together."""
    yield from PIECES[:count]
    choose = random.Random(seed)
    for _ in range(count - len(PIECES)):
        yield choose.choice(("", " ", " ", "\n")).join(choose.choices(PIECES, k=choose.randrange(1, 5)))


def random_strings(count: int, seed: int = 1) -> Iterator[str]:
    """Strings over all planes of Unicode: some of one block, some of anything, some with words between."""
    choose = random.Random(seed)
    for _ in range(count):
        base = choose.choice((0x20, 0xA0, 0x370, 0x900, 0x2000, 0x3000, 0xAC00, 0x1F300, choose.randrange(0x110000)))
        spread = choose.choice((0x60, 0x400, 0x110000))
        text = "".join(chr(min(base + choose.randrange(spread), 0x10FFFF)) for _ in range(choose.randrange(1, 16)))
        yield choose.choice(("", "the house ", "I see ")) + text + choose.choice(("", " is here", "."))


def faults(source: str, output: str) -> list[str]:
    """What is wrong with an output, judged by its characters alone."""
    found = []
    loops = is_degenerate([], [hash(word) for word in output.split()]) or re.search(
        r"(.{1,30}?)\1{5,}", output, re.DOTALL
    )
    if loops and not re.search(r"(.{1,30}?)\1{2,}", source, re.DOTALL):
        found.append("loops")
    if len(output) > max(_MOST_TIMES * len(source), _FREE):
        found.append("too long")
    elif len(output) > _MOST_TIMES * len(source):
        found.append(f"over {_MOST_TIMES} times, but at most {_FREE} characters")
    if not output.strip() and source.strip():
        found.append("empty")
    if "\ufffd" in output and "\ufffd" not in clean(source):
        found.append("U+FFFD")
    return found


def guards(translator: Translator, lines: Sequence[str]) -> None:
    """Print what becomes of single words and odd strings."""
    words = sorted({word for line in lines for word in _WORD.findall(line)})
    words = random.Random(1).sample(words, min(5_000, len(words)))
    for name, sources in (("words", words), ("strings", list(odd_strings(500)))):
        found = translator.translate_batch(sources)
        flags = Counter(flag for item in found for flag in item.flags)
        wrong = [
            (s, item.text, fault) for s, item in zip(sources, found, strict=True) for fault in faults(s, item.text)
        ]
        print(f"{len(sources)} {name}: flags {dict(flags)}, faults {dict(Counter(fault for *_, fault in wrong))}")
        for source, output, fault in wrong:
            print(f"  {fault}: {source!r} -> {output!r}")


def unicode(translator: Translator, count: int) -> None:
    """Print how many random strings come out with a U+FFFD that they did not have."""
    shown = 0
    strings = list(random_strings(count))
    for start in range(0, count, 500):
        part = strings[start : start + 500]
        for source, item in zip(part, translator.translate_batch(part), strict=True):
            shown += "\ufffd" in item.text and "\ufffd" not in clean(source)
    print(f"{count} random strings: {shown} with a U+FFFD that the source lacks")


def pairs(translator: Translator, rows: Sequence[tuple[str, str]]) -> None:
    """Print how many lines lose a bracket or quote, without the guard against it and with it."""
    from sacrebleu.metrics.bleu import BLEU

    some = [(source, reference) for source, reference in rows if has_pair(source)]
    guard = Retry.lacks_a_pair
    for name, check in (("without", lambda *_: False), ("with", guard)):
        Retry.lacks_a_pair = check  # type: ignore[method-assign]
        found = translator.translate_batch([source for source, _ in some])
        wrong = sum(breaks_a_pair(item.text, source, lost=True) for item, (source, _) in zip(found, some, strict=True))
        flags = Counter(flag for item in found for flag in item.flags)
        score = BLEU().corpus_score([item.text for item in found], [[reference for _, reference in some]]).score
        print(f"{name} the guard: {wrong} of {len(some)} lines lack one, BLEU {score:.2f}, flags {dict(flags)}")
    Retry.lacks_a_pair = guard  # type: ignore[method-assign]


def case(translator: Translator, pairs: Sequence[tuple[str, str]], count: int) -> None:
    """Print chrF of capitals and titles with and without sentence case."""
    from sacrebleu.metrics.chrf import CHRF

    chosen = random.Random(1).sample(list(pairs), min(count, len(pairs)))
    sources, references = [source for source, _ in chosen], [reference for _, reference in chosen]

    def raw(texts: Sequence[str]) -> list[str]:
        """What the model makes of them without any handling of the text."""
        found = translator._search([translator._tokenizer.encode(text) for text in texts], None, GREEDY)
        return [translator._tokenizer.decode(best.ids) for best, *_ in found]

    passage = translator._passage("", check_call(translator.pack.manifest, [], {}, beam_size=1))

    def whole(texts: Sequence[str]) -> tuple[list[str], int]:
        kinds = [passage.prepare(text).case for text in texts]
        return [item.text for item in translator.translate_batch(texts)], sum(kind is not Case.PLAIN for kind in kinds)

    def score(outputs: Sequence[str], wanted: Sequence[str]) -> str:
        return f"{CHRF().corpus_score(outputs, [wanted]).score:.1f}"

    upper = [reference.upper() for reference in references]
    titles = [" ".join(word[:1].upper() + word[1:] for word in source.split(" ")) for source in sources]
    capitals = [source.upper() for source in sources]
    plain, wrongly = whole(sources)
    as_capitals, as_titles = raw(capitals), raw(titles)
    (through_capitals, found_capitals), (through_titles, found_titles) = whole(capitals), whole(titles)
    kept = [
        before == after
        for source in sources
        for before, after in zip(source.split(), passage.prepare(source.upper()).text.split(), strict=False)
    ]
    print(f"{len(chosen)} sentences: plain {score(plain, references)}, taken for capitals or titles: {wrongly}")
    print(
        f"  capitals: {score(as_capitals, upper)} as they are, {score(through_capitals, upper)} in sentence case "
        f"(found {found_capitals}; {sum(kept) / len(kept):.1%} of the words in the case they had)"
    )
    print(
        f"  titles: {score(as_titles, references)} as they are, {score(through_titles, references)} in sentence case "
        f"(found {found_titles})"
    )


def cost(translator: Translator, lines: Sequence[str], rounds: int) -> None:
    """Print what all that is around tokenizer and search adds to sentences translated one at a time.

    For all ordinary sentences, and for those of about 5, 10 and 30 words, as they are and with something to keep in
    them. The model alone (the same ids), the whole, and a translation with and without details are timed by turns; of
    each sentence the least time counts. Sentences that are cut or translated again are left out.
    """
    wholes = _ordinary(translator, lines)
    _added(translator, "all", wholes, rounds)
    for least, most in ((3, 7), (8, 12), (26, 34)):
        some = [line for line in wholes if least <= line.count(" ") + 1 <= most]
        _added(translator, f"{least}-{most} words", some, rounds)
        kept = _ordinary(translator, [_with_span(line, number) for number, line in enumerate(some)])
        _added(translator, "  and something to keep", kept, rounds)


def _ordinary(translator: Translator, lines: Sequence[str]) -> list[str]:
    """Those that are one sentence, which goes through the model once."""
    engine, chosen = translator._engine, []
    generate, calls = engine.generate, 0

    def counted(*args: Any, **settings: Any) -> Any:
        nonlocal calls
        calls += 1
        return generate(*args, **settings)

    engine.generate = counted  # type: ignore[method-assign]
    for line in lines:
        calls = 0
        found = translator.translate_batch([line])[0]
        if len(found.sentences) == 1 and not found.flags and calls == 1:
            chosen.append(line)
    del engine.generate
    return chosen


def _with_span(line: str, number: int) -> str:
    words = line.split(" ")
    middle = (len(words) + 1) // 2
    return " ".join([*words[:middle], _SPANS[number % len(_SPANS)], *words[middle:]])


def _added(translator: Translator, name: str, lines: Sequence[str], rounds: int) -> None:
    engine, tokenizer = translator._engine, translator._tokenizer
    passage = translator._passage("", check_call(translator.pack.manifest, [], {}, beam_size=1))
    given = {}
    for line in lines:
        prepared = passage.prepare(line)
        kept = prepared.kept
        given[line] = passage._keeper.first(prepared.text, kept) if kept else prepared.text  # with placeholders

    def alone(line: str) -> None:
        ids = tokenizer.encode(given[line])
        ((best,),) = engine.generate([ids], [usual_length(ids, engine.max_length)], GREEDY)
        tokenizer.decode(best.ids)

    def named(line: str) -> None:
        translator.translate_batch([line])

    def detailed(line: str) -> None:
        translator.translate_batch([line], details=True)

    tasks: tuple[Callable[[str], object], ...] = (alone, translator.translate, named, detailed)
    found: list[list[float]] = [[] for _ in tasks]
    for _ in range(rounds):
        for task, before in zip(tasks, found, strict=True):
            times = []
            for line in lines:
                began = time.perf_counter()
                task(line)
                times.append(time.perf_counter() - began)
            before[:] = map(min, before or times, times)
    model, whole, plain, details = (1e6 * statistics.fmean(least) for least in found)
    text, more = 100 * (whole / model - 1), 100 * (details / plain - 1)
    print(
        f"{name}: {len(lines)} sentences, model {model:.0f} us, text {whole - model:+.0f} us "
        f"({text:+.1f} %), details {details - plain:+.0f} us ({more:+.1f} %)"
    )


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("guards", "case", "pairs", "unicode", "cost"))
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE")
    parser.add_argument("--pack", default="en-de")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--count", type=int, default=None)
    options = parser.parse_args()
    translator = Translator(options.pack, engine=options.engine)
    if options.what == "unicode":
        unicode(translator, options.count or 100_000)
        return
    if options.what == "cost":
        files = options.files or [Path(__file__).with_name("sentences.en.txt")]
        lines = [line for path in files for line in path.read_text(encoding="utf-8").split("\n") if line]
        cost(translator, lines, options.count or 10)
        return
    rows = [line.split("\t") for path in options.files for line in path.read_text(encoding="utf-8").split("\n") if line]
    if options.what == "guards":
        guards(translator, [row[0] for row in rows])
    elif options.what == "pairs":
        pairs(translator, [(row[0], row[1]) for row in rows])
    else:
        case(translator, [(row[0], row[1]) for row in rows], options.count or 100)


if __name__ == "__main__":
    main()
