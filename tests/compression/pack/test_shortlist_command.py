"""Learning a shortlist from a checkpoint's own translations: the command, and the export stage of a chain."""

from __future__ import annotations

import gzip
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from command_line import fails, run
from mobilenmt import cli
from mobilenmt.compression.core.errors import StageError, VocabularyError
from mobilenmt.compression.core.pairs import Pair, PairWriter
from mobilenmt.compression.core.stage import StageResult
from mobilenmt.compression.pack import stage as export_stage
from mobilenmt.compression.pack.shortlist import ShortlistSettings
from mobilenmt.compression.pack.stage import ExportSettings
from mobilenmt.compression.train.student import make_student, save_checkpoint
from mobilenmt.export.shortlist import FILE_NAME, Shortlist
from mobilenmt.runtime.onnx.engine import Engine
from mobilenmt.runtime.pack import Pack
from mobilenmt.runtime.tokenizer import Tokenizer
from tiny_models import WORDS, make_checkpoint
from training_data import SHAPE, toy_vocabulary

SIZE = 344  # pieces of the tiny checkpoint
SIZES = ("--common", "20", "--per-token", "4")


def sentences(count: int) -> list[str]:
    generator = random.Random(0)
    return [" ".join(generator.choices(WORDS, k=generator.randint(1, 6))) for _ in range(count)]


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return make_checkpoint(tmp_path / "checkpoint", seed=2)


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.en"
    path.write_text("\n".join(sentences(80)) + "\n", encoding="utf-8")
    return path


def tensors(pack: Path) -> dict[str, onnx.TensorProto]:
    graph = onnx.load(pack / "greedy.onnx", load_external_data=False).graph
    return {tensor.name: tensor for tensor in graph.initializer}


# --- the command ------------------------------------------------------------------------------------------------------


def test_export_takes_what_the_command_has_learned(checkpoint: Path, text: Path, tmp_path: Path) -> None:
    parallel = tmp_path / "parallel.tsv.gz"
    parallel.write_bytes(gzip.compress("".join(f"{line}\tignored\n" for line in sentences(40)).encode()))
    done = run("shortlist", checkpoint, "--text", text, parallel, *SIZES, "--sentences", 100, PYTHONWARNINGS="default")
    assert done.returncode == 0, done.stderr.decode()
    told = done.stdout.decode()
    assert told.startswith(f"{checkpoint / FILE_NAME}: ") and told.count("\n") == 1
    assert b"100/100" in done.stderr  # the bar

    learned = Shortlist.load(checkpoint / FILE_NAME)
    assert len(learned.common) <= 21 and learned.lexical.shape == (SIZE, 4)
    assert not np.isin(SIZE - 1, learned.lexical) and (learned.lexical[2:-1, -1] == np.arange(2, SIZE - 1)).all()
    before = {path.name for path in checkpoint.iterdir()}

    options = ("--source-language", "en", "--target-language", "de")
    assert cli.main(["export", str(checkpoint), str(tmp_path / "pack"), *options]) == 0
    assert list(tensors(tmp_path / "pack")["shortlist.lexical"].dims) == [SIZE, 4]
    (checkpoint / FILE_NAME).unlink()
    assert before - {path.name for path in checkpoint.iterdir()} == {FILE_NAME}  # nothing else was left there
    assert cli.main(["export", str(checkpoint), str(tmp_path / "full"), *options]) == 0
    limited, full = Pack.open(tmp_path / "pack"), Pack.open(tmp_path / "full")
    tokenizer = Tokenizer(full.file("tokenizer.json"), full.manifest.tokens, SIZE)
    ids = [tokenizer.encode(line) for line in sentences(20)]
    alike = 0
    for source in ids:
        ((wanted,),) = Engine(full).generate([source], max_lengths=[20])
        ((found,),) = Engine(limited).generate([source], max_lengths=[20])
        candidates = learned.candidates(np.array([*source, 0]))
        assert np.isin(found.ids, candidates).all()
        alike += found.ids == wanted.ids
    assert alike >= 10  # it has learned from these sentences what the model says


def test_a_shortlist_is_replaced_and_has_no_part_in_the_learning(
    checkpoint: Path, text: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["shortlist", str(checkpoint), "--text", str(text), *SIZES]
    assert cli.main(arguments) == 0
    first = Shortlist.load(checkpoint / FILE_NAME)
    Shortlist(np.array([0]), np.zeros((SIZE, 1), np.int32)).save(checkpoint / FILE_NAME)
    assert cli.main(arguments) == 0
    again = Shortlist.load(checkpoint / FILE_NAME)
    assert np.array_equal(first.common, again.common) and np.array_equal(first.lexical, again.lexical)
    one, two = capsys.readouterr().out.splitlines()
    assert one == two


def _no_text(checkpoint: Path, text: Path) -> list[str]:
    return [str(checkpoint)]


def _missing_text(checkpoint: Path, text: Path) -> list[str]:
    return [str(checkpoint), "--text", str(text), str(text.with_name("none.en"))]


def _damaged_text(checkpoint: Path, text: Path) -> list[str]:
    broken = text.with_name("broken.gz")
    broken.write_bytes(gzip.compress(text.read_bytes())[:-20])
    return [str(checkpoint), "--text", str(broken)]


def _little_text(checkpoint: Path, text: Path) -> list[str]:
    text.write_text("\n\n".join([*sentences(19), "too long " * 100]), encoding="utf-8")
    return [str(checkpoint), "--text", str(text)]


def _no_checkpoint(checkpoint: Path, text: Path) -> list[str]:
    return [str(checkpoint.with_name("nowhere")), "--text", str(text)]


def _no_weights(checkpoint: Path, text: Path) -> list[str]:
    (checkpoint / "model.safetensors").unlink()
    return [str(checkpoint), "--text", str(text)]


def _no_sentences(checkpoint: Path, text: Path) -> list[str]:
    return [str(checkpoint), "--text", str(text), "--sentences", "0"]


def _large_table(checkpoint: Path, text: Path) -> list[str]:
    return [str(checkpoint), "--text", str(text), "--per-token", "99999999999999999999"]


def _no_common(checkpoint: Path, text: Path) -> list[str]:
    return [str(checkpoint), "--text", str(text), "--common", "0"]


@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        (_no_text, ["--text FILE"]),
        (_missing_text, ["none.en", "cannot be read", "No such file"]),
        (_damaged_text, ["broken.gz", "cannot be read"]),
        (_little_text, ["at least 20 sentences", "found 19"]),
        (_no_checkpoint, ["nowhere"]),
        (_no_weights, ["checkpoint", "model.safetensors"]),
        (_no_sentences, ["sentences must be at least 1, not 0"]),
        (_large_table, ["per_token must be an integer from 2 to 1,024, not 99999999999999999999"]),
        (_no_common, ["common must be an integer from 1 to 1,000,000, not 0"]),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(
    mistake: Callable[[Path, Path], list[str]],
    words: list[str],
    checkpoint: Path,
    text: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = mistake(checkpoint, text)
    before = sorted(checkpoint.iterdir())
    assert cli.main(["shortlist", *arguments]) == 2
    told = capsys.readouterr()
    assert told.out == "" and told.err.count("\n") == 1 and told.err.startswith("mobilenmt: error: "), told.err
    assert all(word in told.err for word in words), told.err
    assert sorted(checkpoint.iterdir()) == before


def test_a_mistake_has_its_exit_code_in_a_process_of_its_own(checkpoint: Path, tmp_path: Path) -> None:
    done = run("shortlist", checkpoint, "--text", tmp_path / "none", PYTHONWARNINGS="default")
    fails(done, str(tmp_path / "none"), "cannot be read")


# --- the export stage -------------------------------------------------------------------------------------------------

SETTINGS = ExportSettings(shortlist_sentences=60, shortlist=ShortlistSettings(common=20, per_token=4))


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    with PairWriter(tmp_path / "pairs.tsv.zst") as writer:
        for line in sentences(80):
            writer.write(Pair(line, "ignored", "toy"))
    return tmp_path / "pairs.tsv.zst"


def export(settings: ExportSettings, checkpoint: Path, pairs: Path | None, *, force: bool = False) -> StageResult:
    return export_stage.run(
        settings,
        checkpoint.parent / "export",
        checkpoint=checkpoint,
        name="tiny",
        languages=("en", "de"),
        pairs=pairs,
        force=force,
    )


def test_the_stage_gives_a_pack_its_shortlist(checkpoint: Path, pairs: Path) -> None:
    made = export(SETTINGS, checkpoint, pairs)
    stored = tensors(made.folder / "tiny")
    assert list(stored["shortlist.lexical"].dims) == [SIZE, 4] and list(stored["shortlist.common"].dims) == [SIZE]
    assert 0.5 < made.summary["shortlist_covers"] <= 1  # 57 sentences of these words
    assert 1 < made.summary["shortlist_candidates"] <= 21 + 7 * 4
    assert not (checkpoint / FILE_NAME).exists()  # an input: a stage leaves it as it is
    again = export(SETTINGS, checkpoint, pairs)
    assert again.skipped and again.summary == made.summary


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        (replace(SETTINGS, shortlist=ShortlistSettings(common=20, per_token=5)), "shortlist.per_token was 4 and is 5"),
        (replace(SETTINGS, shortlist_sentences=61), "shortlist_sentences was 60 and is 61"),
        (replace(SETTINGS, shortlist_sentences=0), "shortlist"),
    ],
)
def test_other_sizes_of_the_shortlist_are_a_changed_configuration(
    changed: ExportSettings, told: str, checkpoint: Path, pairs: Path
) -> None:
    export(SETTINGS, checkpoint, pairs)
    with pytest.raises(StageError, match=told):
        export(changed, checkpoint, pairs)
    assert not export(changed, checkpoint, pairs, force=True).skipped


def test_other_text_is_a_changed_input(checkpoint: Path, pairs: Path) -> None:
    export(SETTINGS, checkpoint, pairs)
    with PairWriter(pairs) as writer:
        for line in reversed(sentences(80)):
            writer.write(Pair(line, "ignored", "toy"))
    with pytest.raises(StageError, match="input pairs changed"):
        export(SETTINGS, checkpoint, pairs)


@pytest.mark.parametrize(
    "settings",
    [
        replace(SETTINGS, shortlist=ShortlistSettings(common=SIZE // 4 + 1)),  # it would spare too little
        replace(SETTINGS, shortlist_sentences=0),
        replace(SETTINGS, precision="fp32"),
    ],
)
def test_packs_that_get_no_shortlist(settings: ExportSettings, checkpoint: Path, pairs: Path) -> None:
    made = export(settings, checkpoint, pairs)
    assert "shortlist_covers" not in made.summary
    assert not any("shortlist" in name for name in tensors(made.folder / "tiny"))


def test_an_fp32_pack_stays_when_sizes_of_the_shortlist_change(checkpoint: Path, pairs: Path) -> None:
    settings = replace(SETTINGS, precision="fp32")
    export(settings, checkpoint, pairs)
    assert export(replace(settings, shortlist_sentences=61), checkpoint, pairs).skipped


def test_too_little_text_for_a_shortlist_ends_the_stage(checkpoint: Path, tmp_path: Path) -> None:
    with PairWriter(tmp_path / "few.tsv.zst") as writer:
        for line in sentences(19):
            writer.write(Pair(line, "ignored", "toy"))
    with pytest.raises(VocabularyError, match="found 19"):
        export(SETTINGS, checkpoint, tmp_path / "few.tsv.zst")
    assert not (tmp_path / "export" / "tiny").exists()


def test_a_shortlist_from_the_training_text_joins_what_stands_together(tmp_path: Path) -> None:
    """Each source word with its partner among its candidates; pairs of weight 0 teach nothing."""
    vocabulary = toy_vocabulary(tmp_path / "vocabulary")
    save_checkpoint(make_student(SHAPE, vocabulary, seed=1), vocabulary, tmp_path / "checkpoint")
    generator = random.Random(3)
    taught, ignored = "abcdefgh", "ij"
    with PairWriter(tmp_path / "pairs.tsv.zst") as writer:
        for _ in range(400):
            chosen = generator.sample(taught, 3)
            writer.write(Pair(" ".join(chosen), " ".join(letter.upper() for letter in chosen), "good"))
            writer.write(Pair(" ".join(generator.sample(taught, 3)), " ".join(ignored), "bad"))
    settings = replace(SETTINGS, shortlist_from="text", shortlist_sentences=1000, shortlist=ShortlistSettings(2, 4))
    shortlist, coverage = export_stage._shortlist(
        settings, tmp_path / "checkpoint", tmp_path / "pairs.tsv.zst", {"bad": 0.0}
    )
    assert shortlist is not None and 0.9 < coverage["shortlist_covers"] <= 1
    for letter in taught:
        (source,), target = vocabulary.encode(letter)[-1:], vocabulary.encode(letter.upper())[-1]
        assert target in shortlist.candidates(np.array([source])), letter
