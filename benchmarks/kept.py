"""How well a pack copies placeholders of each form, what is kept in the end, and what finding and restoring cost.

    python benchmarks/kept.py models/en-de [--dev FILE]

Prints tables for docs/kept.md. The cases are those of tests/runtime/text/data/kept.txt. Dev data, if given, is a file
of ``source<TAB>target`` lines: names and numbers of its sentences give way to things to keep.
"""

from __future__ import annotations

import argparse
import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

from mobilenmt.runtime.text.edges import Chunk, cut
from mobilenmt.runtime.text.forms import DEFAULT_FORMS, TRAINED_FORM, Form, Placeholders
from mobilenmt.runtime.text.keeper import Keeper, merged
from mobilenmt.runtime.text.kept import Rules, default_rules, find
from mobilenmt.runtime.text.placeholders import protect, restore
from mobilenmt.runtime.text.placing import Output
from mobilenmt.runtime.translator import Translator

NOTHING = Rules(())
"""The translator itself must not protect what stands for spans here, nor cut the text."""

CASES = Path(__file__).parent.parent / "tests" / "runtime" / "text" / "data" / "kept.txt"
FORMS: tuple[Form, ...] = (
    *(TRAINED_FORM, *DEFAULT_FORMS, "{#}", "{{#}}", "%#$s", "<b#>", "⟦#⟧", "XQ#", "X#", "0x7#"),
    ("Xaro", "Xilo", "Xedu", "Xuna", "Xoki"),
    ("A7", "B8", "C4", "D9", "E6"),
    ("AB1", "CD2", "EF3", "GH4", "JK5"),
)
_INSERTED = (
    *("max@example.com", "{name}", "{{ user.id }}", "%1$s", "https://example.org/a?b=1", "README.md", "`code()`"),
    *("@anna", "#Berlin", "C:\\temp\\a.txt", "2024-01-05", "10:30", "v1.2.3", "AB-1234", "snake_case", "$20"),
)
_NAME = re.compile(r"(?<=[a-z,] )[A-Z][a-z]{2,}(?=[ .,?!])|(?<= )\d[\d,.]*\d(?=[ .,?!])")


class Untrained(Placeholders):
    """Only the forms for unknown models that our training data lack: neither tags nor figures."""

    @property
    def tried(self) -> tuple[Form, ...]:
        """Brackets and codes."""
        return DEFAULT_FORMS[1:]


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("pack")
    parser.add_argument("--dev", type=Path, help="lines of source and target")
    arguments = parser.parse_args()
    translator = Translator(arguments.pack)
    cases = [re.sub("[⟪⟫]", "", line) for line in CASES.read_text(encoding="utf-8").splitlines()]
    print(f"{'placeholders':24} in place, lost, doubled, moved, left over: first try, every span by a placeholder")
    chunks = [piece for text in cases for piece in cut(text, find(text), default_rules()) if isinstance(piece, Chunk)]
    for form in FORMS:
        print(f"{form if isinstance(form, str) else ' '.join(form[:2]) + ' …':24} {_rate(translator, chunks, form)}")
    for name, placeholders in (
        ("trained form first", Placeholders((TRAINED_FORM,))),
        ("unknown model", Placeholders()),
        ("forms that were not trained", Untrained()),
    ):
        _keep(translator, f"cases, {name}", cases, placeholders)
        if arguments.dev:
            _keep(translator, f"dev, {name}", _inserted(arguments.dev), placeholders)
    _cost()


def _rate(translator: Translator, chunks: Sequence[Chunk], form: Form) -> str:
    tried = [protect(c.text, merged(c.text, c.kept), form, default_rules()) for c in chunks if c.kept]
    texts = [item for item in tried if item is not None]
    outputs = translator.translate_batch([item.text for item in texts], keep=NOTHING, split=False)
    done = [restore(output.text, item) for output, item in zip(outputs, texts, strict=True)]
    counts = [sum(bool(getattr(d, fault)) for d in done) for fault in ("missing", "doubled", "misplaced", "leftover")]
    return f"{sum(d.ok for d in done) / len(done):6.1%}  of {len(done)}: {', '.join(map(str, counts))}"


def _keep(translator: Translator, name: str, texts: Sequence[str], placeholders: Placeholders) -> None:
    calls: Counter[int] = Counter()

    def translate(batch: list[str], wanted: int) -> list[list[Output]]:
        calls[wanted] += len(batch)
        found = translator.translate_batch(batch, beam_size=wanted, n_best=wanted, keep=NOTHING, split=False)
        return [[Output(item.text) for item in (best, *best.alternatives)] for best in found]

    results = Keeper(translate, placeholders=placeholders).run(texts)
    flags = Counter(flag for result in results for flag in result.flags)
    again = sum(calls.values()) - len(texts)
    print(f"{name}: {len(texts)} sentences, {again} further searches ({calls[4]} with a beam), flags {dict(flags)}")


def _inserted(path: Path) -> list[str]:
    random = Random(5)
    texts = []
    for line in path.read_text(encoding="utf-8").splitlines():
        text = line.split("\t")[0]
        places = list(_NAME.finditer(text))[:4]
        for place, new in zip(places[::-1], random.sample(_INSERTED, len(places)), strict=True):
            text = text[: place.start()] + new + text[place.end() :]
        if places:
            texts.append(text)
    return texts


def _cost() -> None:
    plain = "We will be there in ten minutes, and then we want to eat something in the old town."
    full = "Write to max@example.com before 10:30, or open the file a.txt in {folder}."

    def keep() -> None:
        spans = find(full)
        protected = protect(full, merged(full, spans), TRAINED_FORM, default_rules())
        if protected is not None:
            restore(protected.text, protected)

    print(f"a sentence with nothing to keep: {_microseconds(lambda: find(plain)):.1f} us")
    print(f"one with four spans, found, protected and restored: {_microseconds(keep):.0f} us")


def _microseconds(call: Callable[[], object]) -> float:
    best = float("inf")
    for _ in range(30):
        started = time.perf_counter()
        for _ in range(100):
            call()
        best = min(best, time.perf_counter() - started)
    return best * 1e4


if __name__ == "__main__":
    main()
