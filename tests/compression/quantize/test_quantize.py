"""``mobilenmt quantize`` from files to a folder: mixtures, tables, going on, and what it refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from mobilenmt.cli import main
from mobilenmt.compression.quantize import command, mixed
from mobilenmt.runtime.pack import Pack
from training_data import prunable, write_dev

VARIANTS = ("fp32", "int8", "int4-32, mse", "int4-32, GPTQ")
FORMS = "int8,int8-wide,int4-32,fp32"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint, dev text, and a finished study."""
    folder = tmp_path_factory.mktemp("study")
    prunable(folder / "en-de", output_bias=False)
    write_dev(folder / "dev.tsv", 30)
    write_dev(folder / "text.tsv", 200, seed=1)
    assert study(folder, "--equal", "--forms", FORMS, "--scored", "1", *told(*VARIANTS)) == 0
    return folder


def study(folder: Path, *options: str, out: str = "out", checkpoint: str = "en-de") -> int:
    files = ("--dev", str(folder / "dev.tsv"), "--text", str(folder / "text.tsv"), "--out", str(folder / out))
    return main(["quantize", str(folder / checkpoint), *files, "--probe", "60", "--sentences", "100", *options])


def told(*variants: str) -> list[str]:
    return [item for variant in variants for item in ("--variant", variant)]


def rows(folder: Path) -> dict[str, dict[str, Any]]:
    found = json.loads((folder / "out" / "results.json").read_text())["rows"]
    return {row["name"]: row for row in found}


def test_the_table_has_every_variant_and_the_mixtures_with_sizes_scores_and_times(folder: Path) -> None:
    found = rows(folder)
    assert set(VARIANTS) < set(found)
    assert sum(name.startswith("mixed") for name in found) == 2
    for name, row in found.items():
        assert row["latency"] > 0 and row["bytes"] > 0 and set(row["scores"]) == {"dev"}, name
    assert found["int4-32, mse"]["bytes"] < found["int8"]["bytes"] < found["fp32"]["bytes"]
    assert found["fp32"]["distance"] == pytest.approx(0, abs=1e-6)
    assert found["int8"]["distance"] < found["int4-32, mse"]["distance"]
    assert found["int4-32, GPTQ"]["distance"] < found["int4-32, mse"]["distance"]
    out = folder / "out"
    for name in ("results", "sensitivity"):
        assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert (out / f"{name}.md").read_text().count("\n| ") > 4
    scores = json.loads((out / "sensitivity.json").read_text())["scores"]
    assert len(scores) == 2


def test_a_mixture_fits_and_moves_the_model_less_than_int8(folder: Path) -> None:
    found = rows(folder)
    (settings,) = (folder / "out").glob("mixed-*.json")
    plain = found["int8"]
    for name, row in found.items():
        if name.startswith("mixed"):
            assert row["bytes"] <= plain["bytes"]
            assert row["distance"] < plain["distance"]
    assert main(["export", str(folder / "en-de"), str(folder / "again"), "--quantization", str(settings)]) == 0
    made = Pack.open(folder / "out" / "packs" / settings.stem)
    for name in ("weights.bin", "native.bin"):
        assert (folder / "again" / name).read_bytes() == (made.path / name).read_bytes()


def test_a_second_run_does_nothing_anew(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path: path.read_bytes() for path in (folder / "out").glob("*.md")}

    def never(*args: object, **kinds: object) -> None:
        raise AssertionError("this was done already")

    for name in ("score", "latencies", "make"):
        monkeypatch.setattr(command, name, never)
    assert study(folder, "--forms", FORMS, "--scored", "1", *told(*VARIANTS)) == 0
    assert {path: path.read_bytes() for path in (folder / "out").glob("*.md")} == before


def test_a_smaller_size_is_kept_and_one_that_is_too_small_says_the_smallest(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    size = rows(folder)["int4-32, mse"]["bytes"] + 3000
    assert study(folder, "--forms", FORMS, "--size", str(size)) == 0
    name = f"mixed-{size:,}".replace(",", "-")
    (pack,) = (path for path in (folder / "out" / "packs").glob(f"{name}-bytes"))
    assert Pack.open(pack).total_bytes <= size
    capsys.readouterr()
    assert study(folder, "--size", "20kB") == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "20,000 bytes: the smallest takes about" in error
    assert int(error.split()[-1].replace(",", "")) == pytest.approx(size, rel=0.05)


def test_a_pack_that_comes_out_too_large_is_made_again_smaller(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    estimated = mixed.option_bytes

    def too_few(*args: Any) -> dict[tuple[str, str], int]:
        return {key: size - 300 * ("int8" not in key[1]) for key, size in estimated(*args).items()}

    monkeypatch.setattr(mixed, "option_bytes", too_few)
    size = rows(folder)["int4-32, mse"]["bytes"] + 4001
    assert study(folder, "--forms", FORMS, "--size", str(size)) == 0
    (pack,) = (folder / "out" / "packs").glob(f"mixed-{size:,}-bytes".replace(",", "-"))
    assert Pack.open(pack).total_bytes <= size


def test_other_checkpoints_are_rows_too(folder: Path) -> None:
    prunable(folder / "other", output_bias=False, seed=5)
    options = (*told("int8"), "--against", f"trained={folder / 'other'}")
    assert study(folder, *options) == 0
    assert {"trained: int8", "trained: int4-32"} < set(rows(folder))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--size", "much"], "--size"),
        (["--size", "1MB", "--equal"], "not both"),
        (["--variant", "int5"], "there is no variant 'int5'"),
        (["--forms", "int8,int3"], "int3"),
        (["--against", "nothing"], "NAME=FOLDER"),
        (["--lines", "0"], "at least 1"),
        (["--probe", "5"], "at least 50"),
        (["--clipping", "max"], "another study (settings"),
    ],
)
def test_options_that_make_no_sense_are_one_line(
    folder: Path, options: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert study(folder, *options) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1


def test_files_that_will_not_do_are_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def fails(*words: str) -> None:
        error = capsys.readouterr().err.splitlines()[-1]
        assert error.startswith("mobilenmt: error: ") and all(word in error for word in words), error

    assert main(["quantize", str(folder / "en-de"), "--out", str(folder / "new")]) == 2
    fails("--dev")
    assert main(["quantize", str(folder / "en-de"), "--dev", str(folder / "dev.tsv")]) == 2
    fails("--out")
    assert study(folder, out="new", checkpoint="absent") == 2
    fails("absent")
    pack = next((folder / "out" / "packs").iterdir())
    assert main(["quantize", str(pack), "--dev", str(folder / "dev.tsv"), "--out", str(folder / "new")]) == 2
    fails("is a pack", "restore")
    assert study(folder, out="en-de") == 2
    fails("holds no study")
    shutil.copy(folder / "text.tsv", folder / "short.tsv")
    (folder / "short.tsv").write_text("\n".join((folder / "text.tsv").read_text().split("\n")[:20]))
    short = ["--dev", str(folder / "dev.tsv"), "--text", str(folder / "short.tsv"), "--out", str(folder / "fresh")]
    assert main(["quantize", str(folder / "en-de"), *short, "--sensitivity"]) == 2
    fails("too short")
    assert not (folder / "new").exists()
