"""What a phone's user types, made from dev sets and translated: shows what each kind of augmentation gained.

    python examples/en-de/user_text.py PACK… --dev DEV.tsv… [--words WORDS.tsv]

Prints a Markdown table: BLEU / chrF where the text changes its form, the share of outputs that hold a thing exactly
once where it is to be copied. WORDS.tsv holds ``word<TAB>translation`` lines, a word on several if it has several.
"""

from __future__ import annotations

import argparse
import itertools
import random
import re
from collections.abc import Callable
from pathlib import Path

from mobilenmt import Translator
from mobilenmt.compression.core.pairs import Pair
from mobilenmt.compression.core.scoring import Scorer
from mobilenmt.compression.dataset import augment_text

LANGUAGES = ("en", "de")
BEHIND = {  # the first six emoji are in no list of augmentation
    "emoji": "🥨 🦄 🧀 🛵 🎓 🪴 😀 😂 ❤️ 👍 🎉",
    "smiley": ":) :-( ;-) :P",
    "URL": "https://maps.app.goo.gl/Xy7Qz www.bahn.de/fahrplan https://en.wikipedia.org/wiki/Fox?x=12",
    "e-mail address": "jon.snow@gmail.com maria_77@web.de office@city-hall.co.uk",
    "placeholder": "{user} %s {{0}} [CITY] ${total}",
}
INSIDE = {
    "number": (
        "347 58 6912 1987 20481 10:35 7-B4",
        (
            "I paid {} euros for it.|Room {} is on the left.|Bus {} is late.|He was born in {}.|Call me at {}.|"
            "The code is {}."
        ),
    ),
    "placeholder": (
        "{name} %s {{0}} %1$s [NAME]",
        "Hello {}, how are you?|{} gave me a book.|I saw {} yesterday.|Do you know where {} lives?",
    ),
    "tag": (
        "<b>{}</b> <i>{}</i> <span>{}</span>",
        "Click {here} to go on.|This is {very} important.|{Where} is the station?|He is my {best} friend.",
    ),
}


def read_pairs(path: Path, lines: int) -> list[Pair]:
    """Evenly spaced lines of a TSV file."""
    rows = path.read_text(encoding="utf-8").split("\n")[:-1]
    chosen = rows[:: max(1, len(rows) // lines)][:lines]
    return [Pair(*(field.strip() for field in row.split("\t")[:2])) for row in chosen]


def forms(base: list[Pair]) -> dict[str, list[Pair]]:
    """The dev pairs as people type them."""
    changes: dict[str, Callable[[Pair], Pair | None]] = {
        "as it is": lambda pair: pair,
        "IN CAPITALS": lambda pair: augment_text.all_caps(pair, LANGUAGES),
        "Like A Title": lambda pair: augment_text.title_case(pair, LANGUAGES[0]),
        "without capitals": lambda pair: augment_text.lower_case(pair, LANGUAGES[0]),
        "without the last mark": augment_text.without_end,
    }
    found = {name: [made for pair in base if (made := change(pair))] for name, change in changes.items()}
    joined = [augment_text.joined([first, second]) for first, second in itertools.pairwise(base)]
    return found | {"two sentences": [pair for pair in joined if pair]}


def copies(base: list[Pair]) -> dict[str, list[tuple[str, str]]]:
    """(text, what its translation must hold once)."""
    choose = random.Random(1)
    found = {}
    for name, things in BEHIND.items():
        chosen = [(pair, choose.choice(things.split())) for pair in base]
        found[f"{name} at the end"] = [(f"{pair.source} {thing}", thing) for pair, thing in chosen]
    for name, (things, frames) in INSIDE.items():
        texts = []
        for frame in frames.split("|"):
            word = re.search(r"\{(\w*)\}", frame)
            assert word is not None
            for thing in things.split():
                text = thing.replace("{}", word[1]) if word[1] else thing
                held = thing.partition("{}")[2] or thing  # of a tag, what closes it
                texts.append((frame.replace(word[0], text), held))
        found[f"{name} inside"] = texts
    return found


def main() -> None:
    """See the head of this file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("packs", nargs="+", type=Path, metavar="PACK")
    parser.add_argument("--dev", nargs="+", type=Path, required=True, metavar="DEV.tsv")
    parser.add_argument("--words", type=Path, metavar="WORDS.tsv")
    parser.add_argument("--lines", type=int, default=200, help="taken of each dev set")
    given = parser.parse_args()
    base = [pair for path in given.dev for pair in read_pairs(path, given.lines)]
    words: dict[str, set[str]] = {}
    for word, translation, _ in read_pairs(given.words, 10**9) if given.words else ():
        words.setdefault(word, set()).add(translation.lower())
    table: dict[str, list[str]] = {}
    for pack in given.packs:
        with Translator(pack) as translator:

            def outputs(texts: list[str], translator: Translator = translator) -> list[str]:
                return [found.text for found in translator.translate_batch(texts, together=True)]

            for name, pairs in forms(base).items():
                score = Scorer(LANGUAGES[1]).score(outputs([pair.source for pair in pairs]), [p.target for p in pairs])
                table.setdefault(name, []).append(f"{score.bleu:.1f} / {score.chrf:.1f}")
            for name, items in copies(base).items():
                found = outputs([text for text, _ in items])
                right = sum(text.count(held) == 1 for text, (_, held) in zip(found, items, strict=True))
                table.setdefault(name, []).append(f"{right / len(items):.0%}")
            if words:
                found = outputs(list(words))
                right = sum(
                    text.strip(".!?").lower() in known for text, known in zip(found, words.values(), strict=True)
                )
                table.setdefault("a single word", []).append(f"{right / len(words):.0%}")
    print("|".join(["| text ", *(f" {pack.name} " for pack in given.packs), ""]))
    print("|---" * (1 + len(given.packs)) + "|")
    for name, cells in table.items():
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
