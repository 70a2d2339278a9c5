"""Evaluation: the scores are sacrebleu's, the translations the runtime's, and mistakes are told in one line."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from command_line import fails, run
from mobilenmt.compression.core.errors import EvaluationError, RecipeError
from mobilenmt.compression.core.scoring import Scorer
from mobilenmt.compression.evaluate import stage
from mobilenmt.compression.evaluate.evaluate import EvaluateSettings, evaluate
from mobilenmt.compression.evaluate.scoring import assign_peers, read_test_sets
from mobilenmt.runtime.translator import Translator
from tiny_models import WORDS
from tiny_teachers import make_teacher

sacrebleu = pytest.importorskip("sacrebleu")

SOURCES = [f"the {WORDS[index % 30]} and the {WORDS[(7 * index) % 30]}" for index in range(12)]


@pytest.fixture
def test_set(tiny_pack: Path, tmp_path: Path) -> Path:
    """References that the tiny pack gets partly right: its own translations, the third of them spoilt."""
    found = [item.text for item in Translator(tiny_pack).translate_batch(SOURCES)]
    references = [text if index % 3 else f"{text} Haus" for index, text in enumerate(found)]
    path = tmp_path / "set1.en-de.tsv"
    rows = zip(SOURCES, references, strict=True)
    path.write_text("".join(f"{source}\t{target or '-'}\ttag\n" for source, target in rows), encoding="utf-8")
    return path


def command_line_score(outputs: list[str], references: list[str], metric: str, folder: Path) -> float:
    """The score by sacrebleu's own command line."""
    (folder / "outputs").write_text("".join(f"{line}\n" for line in outputs), encoding="utf-8")
    (folder / "references").write_text("".join(f"{line}\n" for line in references), encoding="utf-8")
    command = ["sacrebleu", folder / "references", "-i", folder / "outputs", "-m", metric, "-b", "-w", "4"]
    done = subprocess.run([sys.executable, "-m", *map(str, command)], capture_output=True, text=True, check=True)
    return float(done.stdout)


def test_scores_are_those_of_sacrebleus_command_line(tmp_path: Path) -> None:
    references = ["Der Hund sieht zwei Katzen.", "Wo ist der Bahnhof?", "Heute nicht, danke!", "Ein kleines Haus."]
    outputs = ["Der Hund sieht die Katzen.", "Wo ist der Bahnhof?", "Heute nein danke!", "Ein Haus, klein."]
    found = Scorer("de").score(outputs, references)
    assert found.bleu == pytest.approx(command_line_score(outputs, references, "bleu", tmp_path), abs=1e-4)
    assert found.chrf == pytest.approx(command_line_score(outputs, references, "chrf", tmp_path), abs=1e-4)


def test_signatures_name_the_tokenizer_of_the_language() -> None:
    for language, tokenizer in (("de", "tok:13a"), ("zh", "tok:zh"), ("pt-BR", "tok:13a"), ("zh-Hant", "tok:zh")):
        scorer = Scorer(language)
        scorer.score(["一 二 三 四 五"], ["一 二 三 四 五"])
        assert (
            tokenizer in scorer.signatures()["BLEU"]
            and f"version:{sacrebleu.__version__}" in scorer.signatures()["BLEU"]
        )


def test_a_pack_and_peers_side_by_side(tiny_pack: Path, test_set: Path, tmp_path: Path) -> None:
    references = [line.split("\t")[1] for line in test_set.read_text(encoding="utf-8").splitlines()]
    peer = tmp_path / "set1.perfect.de"
    peer.write_text("".join(f"{line}\n" for line in references), encoding="utf-8")
    settings = EvaluateSettings(test=(test_set,), peers={"perfect": (peer,)}, beam=1)
    found = evaluate({"ours": tiny_pack}, settings)
    ours, perfect = found.systems
    outputs = [item.text for item in Translator(tiny_pack).translate_batch(SOURCES, beam_size=1)]
    assert list(found.outputs["ours"]["set1"]) == outputs
    expected = sacrebleu.corpus_bleu(outputs, [references])
    assert ours.scores["set1"].bleu == pytest.approx(expected.score, abs=1e-3)
    letters = sacrebleu.corpus_chrf(outputs, [references]).score  # random weights hit letters, if no four words
    assert ours.scores["set1"].chrf == pytest.approx(letters, abs=1e-3) and 0 < letters < 100
    assert perfect.scores["set1"].chrf == pytest.approx(100) and perfect.sentences_per_second is None
    assert ours.bytes == sum(path.stat().st_size for path in tiny_pack.iterdir())
    assert ours.kind == "pack" and ours.precision == "int8"
    assert ours.sentences_per_second is not None and ours.sentences_per_second > 0
    assert ours.added_memory_bytes is not None and ours.peak_memory_bytes is not None  # Linux
    assert 1e6 < ours.peak_memory_bytes < 3e8 and ours.added_memory_bytes < ours.peak_memory_bytes
    found.write(tmp_path / "out")
    stored = json.loads((tmp_path / "out" / "scores.json").read_text(encoding="utf-8"))
    assert stored["systems"][0]["scores"]["set1"]["bleu"] == ours.scores["set1"].bleu
    assert (tmp_path / "out" / "outputs" / "ours" / "set1.txt").read_text(encoding="utf-8").split("\n")[:-1] == outputs
    kept = (tmp_path / "out" / "tests" / "set1.tsv").read_text(encoding="utf-8").splitlines()
    assert [line.split("\t") for line in kept] == [[*pair] for pair in zip(SOURCES, references, strict=True)]
    assert (tmp_path / "out" / "scores.png").read_bytes().startswith(b"\x89PNG")
    assert f"{ours.scores['set1'].bleu:.2f}" in (tmp_path / "out" / "scores.md").read_text(encoding="utf-8")


def test_a_checkpoint_runs_in_fp32(
    tiny_checkpoint: Path, test_set: Path, make_pack: Callable[..., Path], tmp_path: Path
) -> None:
    found = evaluate({"student": tiny_checkpoint}, EvaluateSettings(test=(test_set,)))
    expected = [item.text for item in Translator(make_pack(tiny_checkpoint, "fp32")).translate_batch(SOURCES)]
    assert list(found.outputs["student"]["set1"]) == expected
    assert (found.systems[0].kind, found.systems[0].precision) == ("checkpoint", "fp32")


def test_a_chain_that_prunes_scores_what_was_left(
    tiny_checkpoint: Path, tiny_pack: Path, test_set: Path, tmp_path: Path
) -> None:
    """Beside the student, its pack and the teacher, and neither where the recipe wants no teacher."""
    for teacher, names in ((True, ["student fp32", "pack", "pruned"]), (False, ["student fp32", "pack"])):
        done = stage.run(
            EvaluateSettings(dev=(test_set,), lines=2, teacher=teacher),
            tmp_path / str(teacher),
            checkpoint=tiny_checkpoint,
            pack=tiny_pack,
            teacher=None,
            pruned=tiny_checkpoint,
            languages=("en", "de"),
        )
        assert list(done.summary["scores"]) == names


def test_test_sets_are_named_cut_and_turned_round(tmp_path: Path) -> None:
    path = tmp_path / "flores.en-de.tsv.gz"
    path.write_bytes(gzip.compress("a b\tc\td\r\ne\u2028f\tg\nh\ti\n".encode()))
    (found,) = read_test_sets([path], lines=2)
    assert (found.name, found.sources, found.references, found.total) == ("flores", ("a b", "e\u2028f"), ("c", "g"), 3)
    assert found.words == 4
    assert read_test_sets([path], reverse=True)[0].sources == ("c", "g", "i")
    other = tmp_path / "flores.en-fr.tsv"
    other.write_text("x\ty\n")
    assert [item.name for item in read_test_sets([path, other])] == ["flores.en-de.tsv.gz", "flores.en-fr.tsv"]
    twins = [tmp_path / kind / "flores.en-de.tsv" for kind in ("dev", "test")]
    for twin in twins:
        twin.parent.mkdir()
        twin.write_text("x\ty\n")
    assert [item.name for item in read_test_sets(twins)] == ["dev-flores", "test-flores"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a\tb\nc\n", ["line 2", "a tab"]),
        (b"a\t \n", ["line 1"]),
        (b"", ["no lines"]),
        (b"\xff\t\xfe\n", ["not UTF-8"]),
    ],
)
def test_a_broken_test_set(content: bytes, words: list[str], tmp_path: Path) -> None:
    path = tmp_path / "set.tsv"
    path.write_bytes(content)
    with pytest.raises(EvaluationError) as caught:
        read_test_sets([path])
    assert all(word in str(caught.value) for word in ["set.tsv", *words])
    with pytest.raises(EvaluationError, match="No such file"):
        read_test_sets([tmp_path / "missing.tsv"])


def test_a_peers_file_finds_its_test_set(tmp_path: Path) -> None:
    for name, count in (("a.tsv", 2), ("b.tsv", 3), ("c.tsv", 3)):
        (tmp_path / name).write_text("x\ty\n" * count)
    sets = read_test_sets([tmp_path / name for name in ("a.tsv", "b.tsv", "c.tsv")], lines=1)
    for name, count in (("two", 2), ("c.three", 3), ("three", 3), ("four", 4)):
        (tmp_path / name).write_text("line\n" * count)
    found = assign_peers({"p": [tmp_path / "two", tmp_path / "c.three"]}, sets)
    assert found == {"p": {"a": ("line",), "c": ("line",)}}
    for name in ("three", "four"):
        with pytest.raises(EvaluationError, match="fit no one test set alone"):
            assign_peers({"p": [tmp_path / name]}, sets)
    with pytest.raises(EvaluationError, match="already"):
        assign_peers({"p": [tmp_path / "two", tmp_path / "two"]}, sets)


def test_settings_are_checked() -> None:
    for wrong in ({"lines": 0}, {"beam": 0}, {"threads": -1}):
        with pytest.raises(RecipeError):
            EvaluateSettings(**wrong)  # type: ignore[arg-type]


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_command_prints_a_table_or_json(tiny_pack: Path, test_set: Path, tmp_path: Path) -> None:
    done = run("evaluate", tiny_pack, "--test", test_set, "--lines", 5)
    assert done.returncode == 0 and done.stderr == b"", done.stderr
    text = done.stdout.decode()
    assert "| BLEU / chrF | set1 |" in text and "tok:13a" in text and "sentences/s" in text
    other = tmp_path / "set2.tsv"
    other.write_text("the dog\tder Hund\n")
    done = run("evaluate", tiny_pack, "--test", test_set, other, "--json", "--out", tmp_path / "results" / "deep")
    value = json.loads(done.stdout)
    assert [item["name"] for item in value["tests"]] == ["set1", "set2"]
    assert set(value["systems"][0]["scores"]) == {"set1", "set2"}
    assert (tmp_path / "results" / "deep" / "scores.png").is_file()


def test_wrong_use_of_the_command(tiny_pack: Path, test_set: Path, tmp_path: Path) -> None:
    fails(run("evaluate", tiny_pack), "--test")
    fails(run("evaluate", tiny_pack, "--test", tmp_path / "none.tsv"), "none.tsv")
    fails(run("evaluate", "nothing", "--test", test_set), "nothing")
    fails(run("evaluate", tiny_pack, "--test", test_set, "--peer", "x"), "NAME=FILE")
    fails(run("evaluate", tiny_pack, "--test", test_set, "--beam", 0), "beam")
    fails(run("evaluate", tiny_pack, "--test", test_set, "--beam", 5000), "beam_size")


def test_a_checkpoint_of_another_kind_runs_as_a_teacher_does(test_set: Path, tmp_path: Path) -> None:
    from mobilenmt.compression.teacher.check import check_teacher
    from mobilenmt.compression.teacher.machine import find_machine
    from mobilenmt.compression.teacher.open import open_teacher
    from mobilenmt.compression.teacher.settings import TeacherSettings
    from mobilenmt.compression.teacher.spec import TeacherSpec

    checkpoint = make_teacher("m2m_100", tmp_path / "m2m")
    fails(run("evaluate", checkpoint, "--test", test_set), "--source-language")
    fails(run("evaluate", checkpoint, "--test", test_set, "--source-language", "en", "--target-language", "xx"), "xx")
    settings = EvaluateSettings(test=(test_set,), beam=2)
    found = evaluate({"m2m": checkpoint}, settings, source_language="en", target_language="de")
    teacher = TeacherSettings(checkpoint=str(checkpoint), search="beam", beam_size=2, threads=1)
    spec = TeacherSpec.of(teacher, check_teacher(teacher, "en", "de"), "de", 0, find_machine(teacher))
    expected = [candidates[0].text for candidates in open_teacher(spec).translate(SOURCES)]
    assert [line.strip() for line in found.outputs["m2m"]["set1"]] == [line.strip() for line in expected]
    assert any(expected) and found.systems[0].kind == "checkpoint" and found.systems[0].sentences_per_second
