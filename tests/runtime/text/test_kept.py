"""The rules find what they name and nothing else, in every dialect of regular expressions, in linear time."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from itertools import pairwise
from pathlib import Path

import pytest

import mobilenmt.runtime.text.kept as kept_module
from marked import unmarked
from mobilenmt.runtime.errors import InputError
from mobilenmt.runtime.text.kept import Kept, Rules, default_rules, find, gather
from mobilenmt.runtime.text.letters import Alphabet, unknown

DATA = Path(__file__).parent / "data"
RULES_FILE = Path(kept_module.__file__).parent / "rules" / "kept.json"
RULES = json.loads(RULES_FILE.read_text(encoding="utf-8"))


def examples() -> list[tuple[str, str]]:
    lines = (DATA / "kept_rules.tsv").read_text(encoding="utf-8").splitlines()
    return [(line.split("\t")[0], line.split("\t")[1]) for line in lines]


@pytest.mark.parametrize(("rule", "text"), examples())
def test_a_rule_finds_its_own_and_nothing_else(rule: str, text: str) -> None:
    plain, spans = unmarked(text)
    found = default_rules().only(rule).find(plain)
    assert [plain[k.start : k.end] for k in found] == [plain[a:b] for a, b in spans]
    assert [(k.start, k.end, k.rule) for k in found] == [(a, b, rule) for a, b in spans]


@pytest.mark.parametrize(("rule", "text"), examples())
def test_all_rules_together_leave_no_span_of_the_examples_out(rule: str, text: str) -> None:
    plain, spans = unmarked(text)
    found = find(plain)
    for start, end in spans:
        assert all(any(k.start <= at < k.end for k in found) for at in range(start, end) if not plain[at].isspace()), (
            plain[start:end]
        )


def test_every_rule_has_an_example() -> None:
    assert {rule for rule, _ in examples()} == {rule["name"] for rule in RULES["rules"]}


@pytest.mark.parametrize(
    "text",
    [
        "We will be there in ten minutes.",
        "Dr. Smith, e.g. at five p.m. today...",
        "He said: no, I don't - really?",
        "A well-known, self-service word--word (or not).",
        "What? Yes! “Quoted” ‘text’; that’s all…",
        "ÄÖÜ ß é 你好 мир",
    ],
)
def test_plain_sentences_hold_nothing_to_keep(text: str) -> None:
    assert find(text) == []


def test_of_overlapping_spans_the_first_then_the_longest_counts() -> None:
    text = "see C:\\temp\\new.txt and `a@b.de` now"
    assert [text[k.start : k.end] for k in find(text)] == ["C:\\temp\\new.txt", "`a@b.de`"]


def test_spans_are_in_order_and_apart() -> None:
    text = " ".join(unmarked(line)[0] for _, line in examples())
    found = find(text)
    assert all(first.end <= second.start for first, second in pairwise(found))
    assert len(found) > 100


def test_rules_can_be_switched_off_replaced_and_added() -> None:
    rules = default_rules()
    assert find("Ask @anna", rules.without("mention")) == []
    words = rules.adding("product", "Acme [A-Z][a-z]+")
    assert words.find("The Acme Rocket is new") == [Kept(4, 15, "product")]
    function = rules.adding("shout", lambda text: [(m.start(), m.end()) for m in re.finditer("[A-Z]{4,}", text)])
    assert function.find("a LOUD word") == [Kept(2, 6, "shout")]
    assert rules.adding("mention", "@x").find("@anna @x") == [Kept(6, 8, "mention")]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: default_rules().without("emial"), "no rule is named 'emial'; there are url"),
        (lambda: default_rules().adding("x", "(a"), "rule x: not a regular expression"),
        (lambda: default_rules().adding("X y", "a"), "a rule's name"),
        (lambda: default_rules().adding("x", "a", edge="sometimes"), "edge must be one of"),
        (lambda: default_rules().adding("x", "a", either=".,;"), "either must be two characters"),
    ],
)
def test_what_cannot_be_meant_is_told(make: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()  # type: ignore[operator]


@pytest.mark.parametrize("given", ["ab", 5, None, [1, 2], [(1,)], [(0, 1, 2)], [("a", "b")], [(0.5, 2.0)]])
def test_a_function_that_gives_no_spans_is_named(given: object) -> None:
    rules = Rules(()).adding("mine", lambda text: given)  # type: ignore[arg-type, return-value]
    with pytest.raises(InputError, match="rule mine: the function must give"):
        rules.find("abc")
    with pytest.raises(InputError, match="rule mine: expected a regular expression or a function"):
        rules.adding("mine", 5)  # type: ignore[arg-type]


def test_rules_show_their_names() -> None:
    assert repr(default_rules().only("url", "email")) == "Rules(url, email)"


def test_a_function_that_gives_nonsense_is_not_believed() -> None:
    rules = Rules(()).adding("x", lambda text: [(-1, 3), (2, 2), (3, 99), (1, 2)])
    assert rules.find("abcd") == [Kept(1, 2, "x")]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("dog ⟪😀⟫⟪猫⟫", ["猫"]),
        ("⟪猫⟫⟪😀⟫ dog", ["猫"]),
        ("a ⟪你⟫ ⟪😀⟫ ⟪好⟫ ⟪😀⟫⟪猫⟫.", ["你", "好", "猫"]),
        ("⟪😀⟫ ⟪{猫}⟫⟪猫⟫", ["猫"]),
        ("⟪https://猫.org/猫⟫ ⟪猫⟫", None),
        ("a ⟪猫 犬⟫ b", ["猫 犬"]),
    ],
)
def test_what_the_vocabulary_lacks_beside_what_a_rule_finds(text: str, wanted: list[str] | None) -> None:
    """An emoji is unknown too, and makes one stretch with its neighbours: only its own part of that is the rule's."""
    plain, spans = unmarked(text)
    alphabet = Alphabet(lambda character: character < "\u2000")
    rules = default_rules().adding("mine", r"\{[^{}]*\}")
    found = gather(plain, rules, None, lambda text: unknown(text, alphabet))
    assert all(a.end <= b.start for a, b in pairwise(found))
    if wanted is not None:
        assert [(span.start, span.end) for span in found] == spans
        assert [plain[span.start : span.end] for span in found if span.rule == "unknown"] == wanted
    for place, character in enumerate(plain):
        if character > "\u2000":
            assert any(span.start <= place < span.end for span in found), character


def test_spans_of_a_function_that_overlap_one_another_are_taken_once() -> None:
    def extra(text: str) -> list[Kept]:
        return [Kept(3, 9, "long"), Kept(0, 5, "unknown"), Kept(4, 6, "unknown")]

    assert gather("abcdefghij", Rules(()), None, extra) == [Kept(0, 5, "unknown"), Kept(5, 9, "long")]


# -- dialects ---------------------------------------------------------------------------------------------------------


def patterns() -> list[str]:
    written = [pattern for rule in RULES["rules"] for pattern in (rule["pattern"], rule.get("hint", ""))]
    return [
        re.sub("«([A-Z]+)»", lambda match: RULES["sets"][match[1]], pattern)
        for pattern in [*written, *RULES["any"], RULES["breaks"]]
    ]


def test_patterns_use_only_what_every_dialect_reads_alike() -> None:
    forbidden = re.compile(r"\\[wWdDsSbBAZzGhHvVRXpPQEk1-9]|&&|\[\[:|\[[^\]]*--\[")
    outside = re.compile(r"\(\?[P#>imsx(&]|\(\?<[^=!]|[*+?}]\+|(?<!\\)[$^]")
    for pattern in patterns():
        plain = pattern.replace(r"\\", "")
        assert forbidden.search(plain) is None, pattern
        assert outside.search(re.sub(r"\[(?:[^\]\\]|\\.)*\]", "C", plain).replace(r"\$", "")) is None, pattern


@pytest.mark.skipif(shutil.which("node") is None, reason="Node.js is not installed")
def test_node_finds_the_same() -> None:
    program = r"""
      const fs = require('fs'); const rules = JSON.parse(fs.readFileSync(process.argv[1]));
      const whole = p => p.replace(/«([A-Z]+)»/g, (_, name) => rules.sets[name]);
      const texts = JSON.parse(fs.readFileSync(0)); const out = {};
      for (const rule of rules.rules) {
        const pattern = new RegExp(whole(rule.pattern), 'gu');
        if (rule.hint) new RegExp(whole(rule.hint), 'u');
        out[rule.name] = texts.map(text => [...text.matchAll(pattern)].map(match => match[0]));
      }
      for (const pattern of [...rules.any, rules.breaks]) new RegExp(whole(pattern), 'u');
      console.log(JSON.stringify(out));
    """
    texts = [unmarked(line)[0] for _, line in examples()]
    done = subprocess.run(
        ["node", "-e", program, str(RULES_FILE)], input=json.dumps(texts), capture_output=True, text=True, check=True
    )
    theirs = json.loads(done.stdout)
    for rule in RULES["rules"]:
        pattern = re.compile(re.sub("«([A-Z]+)»", lambda match: RULES["sets"][match[1]], rule["pattern"]))
        assert [[match[0] for match in pattern.finditer(text)] for text in texts] == theirs[rule["name"]], rule["name"]


# -- time -------------------------------------------------------------------------------------------------------------

HOSTILE = [
    *("a", "A", "1", "é", "_", "@", "/", "\\", "{", "<", "`", "-", "#", "&", ".", " ", "(", "$", "😀", "🇩", "👩‍", "["),
    *("a.", "a-", "a_", "aA", "a@", "/a", "{}", "{{a", "<a ", "%(", "%1", "1.", "1:", "1 ", "12-", "+1 ", "1,000"),
    *("http://", "http://a(", "www.", "C:\\", "C:\\a b", "a b\\", "\\\\a", "--a", "--a-", "Ctrl+", "a:1:", "(12)"),
    *(
        "A-1",
        "A1/",
        "1 x ",
        "abc/",
        "a b/",
        "a->",
        "DE12 ABCD ",
        "1234 ",
        ";)",
        "{a,plural,{",
        "abcdef0",
        "a.b@c.",
        "~/",
        f"+{'9' * 45}a ",  # groups of figures that could be parted in a million ways
    ),
]


@pytest.mark.parametrize("unit", HOSTILE)
def test_no_text_takes_long(unit: str) -> None:
    for text in (
        unit * (100_000 // len(unit)),
        "http://" + unit * (20_000 // len(unit)),
        "{a, plural, " + unit * (20_000 // len(unit)),
    ):
        started = time.process_time()
        find(text)
        assert time.process_time() - started < 1.0


def test_a_plain_sentence_costs_microseconds() -> None:
    text = "We will be there in ten minutes, and then we want to eat something in the old town."
    find(text)
    best = min(_seconds(text) for _ in range(20))
    assert best < 20e-6  # measured: 2 to 4


def _seconds(text: str) -> float:
    started = time.perf_counter()
    for _ in range(200):
        find(text)
    return (time.perf_counter() - started) / 200
