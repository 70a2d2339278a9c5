"""Reports on runs, whole and unfinished, one and several: what they say, that the page is valid HTML and needs nothing
else, that texts stay texts, and that a damaged or foreign folder is one line."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import html5lib
import pytest
from made_up_run import LINES, PRUNED, REFERENCES, SOURCES, SYSTEMS, evaluate, log, make_run, manifest, write
from markdown_it import MarkdownIt

from command_line import environment
from mobilenmt import cli
from mobilenmt.compression.core.errors import ReportError
from mobilenmt.compression.report.chart import HEIGHT, WIDTH, Point, Series, make_chart
from mobilenmt.compression.report.compare import choose_examples, compare, steps
from mobilenmt.compression.report.read import read_run
from mobilenmt.compression.report.report import report
from mobilenmt.compression.report.run import Planned
from mobilenmt.compression.report.words import change, clean, duration, planned, size

EVIL = """<script>alert('x')</script>&amp;"onload="|`<b>`\u202e\x01\ufdd0 ]]> ${x} {{ 7 * 7 }} *_[a](b)"""


@pytest.fixture
def work(tmp_path: Path) -> Path:
    return make_run(tmp_path / "work")


def page(folder: Path, *runs: Path) -> tuple[str, ElementTree.Element]:
    """The page about runs, as text and as a browser reads it, which finds no fault with it."""
    report(runs, folder / "page.html", folder / "page.md")
    text = (folder / "page.html").read_text(encoding="utf-8")
    return text, html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parse(text)


def words(element: ElementTree.Element) -> str:
    return " ".join("".join(element.itertext()).split())


def section(root: ElementTree.Element, title: str) -> list[ElementTree.Element]:
    """What stands between a heading of that title and the next one."""
    (main,) = root.iter("main")
    found, inside = [], False
    for child in main:
        if child.tag == "h2":
            inside = words(child) == title
        elif inside:
            found.append(child)
    assert found, title
    return found


def rows(elements: list[ElementTree.Element]) -> list[list[str]]:
    return [[words(cell) for cell in row if cell.tag == "td"] for one in elements for row in one.iter("tr")]


# --- one run ----------------------------------------------------------------------------------------------------------


def test_the_page_says_what_was_made_and_what_it_cost(work: Path, tmp_path: Path) -> None:
    text, root = page(tmp_path, work)
    assert words(next(root.iter("h1"))) == "made-up: en to de"
    assert "90,000 pairs of 100,000 read (800,000 and 1 words); 8,000 pieces (1.25 and 1.50 a word)" in text
    assert "not a whole run" not in text
    stages = {row[0]: row[1:] for row in rows(section(root, "What each stage did and cost")) if row}
    assert list(stages) == [
        *("plan", "corpus", "vocabulary", "teacher_model", "teacher", "prune", "distill", "export", "evaluate")
    ]
    assert stages["prune"][:2] == ["61.5 s", "512 MB"]
    assert stages["export"][1] == "≤ 512 MB"  # the process had held that much before
    assert stages["distill"][:4] == ["60 h 0 min", "512 MB", "3,000", "20,000,000"]  # the log counts interruptions
    assert stages["corpus"][4] == "pairs 90,000, read 100,000, dropped.ratio 123, words.source 800,000, words.target 1"


def test_what_was_pruned_is_told_by_layer(work: Path, tmp_path: Path) -> None:
    _, root = page(tmp_path, work)
    part = section(root, "What was pruned")
    assert ["d_model", "128", "96"] in rows(part) and ["parameters", "4,000,000", "1,000,000"] in rows(part)
    assert not any(row[:1] == ["vocabulary"] for row in rows(part))  # it stayed
    (bars,) = [one for one in part if one.get("class") == "bars"]
    told = [words(one) for one in bars if one.get("class") == "soft told"]
    assert told == [
        "6 of 8 heads, 16 of 16 channels in each",
        "128 of 512 neurons",
        "the layer is gone",
        "the layer is gone",
        *["6 of 8 heads, 16 of 16 channels in each"] * 2,
        "128 of 512 neurons",
    ]
    widths = [one.get("style") for one in bars.iter("i")]
    assert widths == [f"width:{share}%" for share in ("75.0", "25.0", "0.0", "0.0", "75.0", "75.0", "25.0")]
    assert [one.get("style") for one in bars.iter("u")][:2] == ["left:87.5%", "left:62.5%"]


def test_rounds_are_told(work: Path, tmp_path: Path) -> None:
    found = [{"parameters": 3_000_000, "loss_before": 2.5, "loss": 2.75, "updates": 400}, "damaged"]
    manifest(work, "prune", {"rounds": found})
    _, root = page(tmp_path, work)
    assert ["1", "3,000,000", "2.500", "2.750", "400"] in rows(section(root, "What was pruned"))
    assert "| 1 | 3,000,000 | 2.500 | 2.750 | 400 |\n" in (tmp_path / "page.md").read_text(encoding="utf-8")


def test_the_loss_of_dev_sets_is_drawn_where_it_was_measured(work: Path, tmp_path: Path) -> None:
    with (work / "distill" / "log.jsonl").open("a") as stream:
        for step in (1000, 2000):
            stream.write(json.dumps({"step": step, "kind": "dev", "scores": {}, "loss": 3000 / step}) + "\n")
    text, _ = page(tmp_path, work)
    assert text.count('class="curve s0 dashed"') == 1 and "dev sets (dashed)" in text


def test_each_step_is_compared_with_the_one_before(work: Path, tmp_path: Path) -> None:
    found = [(step.label, step.quality["bleu"], step.change and step.change["bleu"]) for step in steps(read_run(work))]
    assert found == [
        ("teacher", 32.0, None),
        ("pruned, not trained yet", 10.0, -22.0),
        ("distilled, fp32", 30.0, 20.0),
        ("INT8 pack, with shortlist", 29.5, -0.5),
    ]
    _, root = page(tmp_path, work)
    table = rows(section(root, "What each step cost in quality"))
    assert ["INT8 pack, with shortlist", "29.5", "−0.5", "54.8", "−0.2", "1.5 MB"] in table
    markdown = (tmp_path / "page.md").read_text(encoding="utf-8")
    assert "Lost by the pack against the fp32 checkpoint: +0.50 BLEU, +0.25 chrF." in markdown


def test_the_front_is_what_nothing_beats(work: Path, tmp_path: Path) -> None:
    """Against trying all pairs; a peer of which only the output is known costs nothing and is on no front."""
    found = compare([read_run(work)], ["a"])
    for cost in ("bytes", "milliseconds"):
        for metric in ("bleu", "chrf"):
            able = [one for one in found.candidates if one.cost(cost) is not None]
            expected = {
                one.number
                for one in able
                if not any(
                    (other.cost(cost) or 0) <= (one.cost(cost) or 0)
                    and other.quality[metric] >= one.quality[metric]
                    and (other.cost(cost), other.quality[metric]) != (one.cost(cost), one.quality[metric])
                    for other in able
                )
            }
            assert {one.number for one in found.front(cost, metric)} == expected != set()
    assert [one.system.name for one in found.front("bytes", "bleu")] == ["pack", "student fp32", "teacher"]
    assert [one.milliseconds for one in found.candidates][:3] == [5.0, 2.5, 20.0]
    _, root = page(tmp_path, work)
    table = {row[1]: row for row in rows(section(root, "Candidates")) if len(row) == 10}
    assert table["pack"] == ["2", "pack", "29.5", "54.8", "1.5 MB", "2.5", "8 MB", "0.02", "1,000,000", "size, time"]
    assert table["pruned"][-1] == "" and table["other"][4:6] == ["", ""]


def test_examples_are_the_middles_of_equal_parts(work: Path, tmp_path: Path) -> None:
    found = choose_examples([read_run(work)], ["a"])
    assert [one.line for one in found] == [int((index + 0.5) * LINES / 12) + 1 for index in range(12)]
    assert {one.test for one in found} == {"dev"}
    first = found[0]
    assert (first.source, first.reference) == (SOURCES[1], REFERENCES[1])
    assert first.outputs == [
        *(("teacher", "teacher 1"), ("pruned", "pruned 1"), ("distilled", "student fp32 1"), ("pack", "pack 1"))
    ]
    evaluate(work, outputs={"teacher": REFERENCES, "pack": REFERENCES})
    _, root = page(tmp_path, work)
    last = section(root, "Examples")[-1]  # the closing line of the page
    assert "manifest.json" in words(last)
    lists = [one for part in section(root, "Examples") for one in part.iter("dl")]
    assert [words(one) for one in lists[0]] == [
        *("source", SOURCES[1], "reference", REFERENCES[1]),
        *("teacher, pack", REFERENCES[1], "pruned", "pruned 1", "distilled", "student fp32 1"),
    ]
    assert [one.get("class") for one in lists[0].iter("dd")] == [None, None, "equal", None, None]


def test_fewer_sentences_than_examples(work: Path) -> None:
    evaluate(work, sources=SOURCES[:3], references=REFERENCES[:3])
    assert [one.line for one in choose_examples([read_run(work)], ["a"])] == [1, 2, 3]


def test_charts_keep_to_their_frame(work: Path, tmp_path: Path) -> None:
    """Each has all of its points inside, and no number that is none."""
    text, root = page(tmp_path, work)
    pictures = list(root.iter("{http://www.w3.org/2000/svg}svg"))
    # BLEU and chrF against size and time, the plan, loss of both trainings, BLEU and chrF of the student's
    assert len(pictures) == 4 + 1 + 2 + 2
    for picture in pictures:
        assert picture.get("viewBox") == f"0 0 {WIDTH} {HEIGHT}"
        circles = list(picture.iter("{http://www.w3.org/2000/svg}circle"))
        curves = [one for one in picture.iter("{http://www.w3.org/2000/svg}path") if "curve" in one.get("class", "")]
        assert circles or curves
        places = [(float(one.get("cx", "nan")), float(one.get("cy", "nan"))) for one in circles]
        for curve in curves:
            places += [(float(x), float(y)) for x, y in re.findall(r"([\d.]+),([\d.]+)", curve.get("d", ""))]
        assert all(0 < x < WIDTH and 0 < y < HEIGHT for x, y in places)
    assert not re.search(r"\b(nan|inf|None|Undefined)\b", text)


@pytest.mark.parametrize(
    "values",
    [[(1.0, 1.0)], [(0.0, 0.0), (0.0, 0.0)], [(1e-12, 5.0), (1e12, 5.0)], [(-3.0, -2.0), (7.0, 1e15)], [(5e6, 100.0)]],
)
@pytest.mark.parametrize("logarithmic", [True, False])
def test_axes_of_any_values(values: list[tuple[float, float]], logarithmic: bool) -> None:
    points = [Point(x, y) for x, y in values]
    found = make_chart("t", [Series("s", 0, points)], x=("x", str), y=("y", str), logarithmic=logarithmic)
    assert found is not None
    for point in points:
        assert 0 < found.x.place(point.x) < WIDTH and 0 < found.y.place(point.y) < HEIGHT
    for axis in (found.x, found.y):
        assert 1 <= len(axis.ticks) <= 12 and all(0 <= place <= WIDTH for place, _ in axis.ticks)


def test_no_points_no_chart() -> None:
    assert make_chart("t", [], x=("x", str), y=("y", str)) is None


# --- several runs -----------------------------------------------------------------------------------------------------


def test_runs_side_by_side(work: Path, tmp_path: Path) -> None:
    other = make_run(tmp_path / "other", "smaller")
    evaluate(other, {"pack": ("pack", 25.0, 50.0, 900_000, 900.0)}, outputs={"pack": REFERENCES})
    text, root = page(tmp_path, work, other)
    assert words(next(root.iter("h1"))) == "2 runs: made-up, smaller"
    table = {row[1]: row for row in rows(section(root, "Candidates")) if len(row) == 10}
    assert table["smaller: pack"][-1] == table["made-up: pack"][-1] == "size, time"
    lists = [one for part in section(root, "Examples") for one in part.iter("dl")]
    assert [words(one) for one in lists[0]][-4:] == [*("made-up: pack", "pack 1", "smaller: pack", REFERENCES[1])]
    assert len(re.findall("stairs", text)) == 4 + 1  # fronts, and the line of the style


def test_runs_of_one_name_are_told_apart_by_their_folders(work: Path, tmp_path: Path) -> None:
    _, root = page(tmp_path, work, make_run(tmp_path / "other"))
    assert words(next(root.iter("h1"))) == "2 runs: work, other"
    lists = [one for part in section(root, "Examples") for one in part.iter("dl")]
    assert [words(one) for one in lists[0].iter("dt")][2:4] == ["teacher (all runs)", "pruned (all runs)"]


def test_runs_that_share_no_test_set_are_not_compared(work: Path, tmp_path: Path) -> None:
    other = make_run(tmp_path / "other", "smaller")
    evaluate(other, sources=SOURCES[:20], references=REFERENCES[:20])  # the same names, other sets
    text, root = page(tmp_path, work, other)
    assert "evaluated on no test set that they share" in text
    table = [row for row in rows(section(root, "Candidates")) if len(row) == 10]
    assert len(table) == 2 * len(SYSTEMS) and {(row[2], row[9]) for row in table} == {("", "")}


# --- texts ------------------------------------------------------------------------------------------------------------


def test_texts_stay_texts(work: Path, tmp_path: Path) -> None:
    """Whatever stands in a name, a sentence, a summary: no tag, no script, no column of it comes out."""
    manifest(work, "export", {"pack": EVIL, "bytes": 1, "check": EVIL})
    manifest(work, "prune", {EVIL: EVIL})
    write(work / "report.json", {"name": EVIL, "source_language": EVIL, "target_language": "\ud800"})
    systems = dict(SYSTEMS) | {EVIL: ("peer", 1.0, 2.0, None, None)}
    evaluate(work, systems, sources=[EVIL] * LINES, references=[EVIL] * LINES, outputs={"pack": [EVIL] * LINES})
    text, root = page(tmp_path, work)
    assert not list(root.iter("script")) and "<script" not in text and "49" not in words(next(root.iter("h1")))
    shown = " ".join(clean(EVIL).split())
    lists = [one for part in section(root, "Examples") for one in part.iter("dl")]
    assert [words(one) for one in lists[0].iter("dd")][:2] == [shown, shown]
    markdown = (tmp_path / "page.md").read_text(encoding="utf-8")
    parsed = MarkdownIt("commonmark").enable("table").parse(markdown)
    kinds = {token.type for block in parsed for token in (block, *(block.children or ()))}
    assert not kinds & {"html_inline", "html_block", "link_open", "image", "em_open"}
    cells = ["".join(token.content for token in block.children or ()) for block in parsed if block.type == "inline"]
    assert shown in cells


def test_the_page_needs_nothing_else(work: Path, tmp_path: Path) -> None:
    text, root = page(tmp_path, work)
    assert not re.search(r"(https?:)?//[a-z]", text) and "url(" not in text and "@import" not in text
    assert not [one for one in root.iter() if {"src", "href", "srcset"} & set(one.attrib)]
    assert not [key for one in root.iter() for key in one.attrib if key.startswith("on")]
    policy = [one.get("content") for one in root.iter("meta") if one.get("http-equiv") == "Content-Security-Policy"]
    assert policy == ["default-src 'none'; style-src 'unsafe-inline'"]


def test_markdown_says_the_same(work: Path, tmp_path: Path) -> None:
    page(tmp_path, work)
    text = (tmp_path / "page.md").read_text(encoding="utf-8")
    for line in (
        "# made-up: en to de",
        "| corpus | pairs | 90,000 |",
        "|  | updates | 3,000 |",
        "| 2 | pack | 29.5 | 54.8 | 1,500,000 | 2.5 | 8 MB | 1,000,000 | size, time |",
        "| pack | 29.50 / 54.75 | 28.50 / 53.75 |",
        "| encoder.0.ffn | 128 of 512 neurons | 25% | 62% |",
        "| pruned | pruned 1 |",
        "- BLEU: `tok:13a`",
    ):
        assert line in text.split("\n"), line


# --- what is missing, what is damaged ---------------------------------------------------------------------------------


def test_an_unfinished_run_shows_what_there_is(tmp_path: Path) -> None:
    work = tmp_path / "work"
    manifest(work, "corpus")
    write(work / "distill" / "started.json", {"format": 1, "stage": "distill"})
    log(work, "distill", [5.0, math.nan, 4.0])
    with (work / "distill" / "log.jsonl").open("a") as stream:
        stream.write('{"step": 400, "kind": "tr')  # killed while it wrote
    text, root = page(tmp_path, work)
    for line in ("vocabulary has not begun", "distill has begun and is not done", "evaluate has not begun"):
        assert line in text
    assert "teacher" not in text  # a run need not have one
    stages = {row[0]: row[1:] for row in rows(section(root, "What each stage did and cost")) if row}
    assert stages["distill"] == ["6 h 0 min", "", "300", "3,000", "begun"]
    (chart,) = root.iter("{http://www.w3.org/2000/svg}svg")
    assert len(list(chart.iter("{http://www.w3.org/2000/svg}circle"))) == 2  # the loss that is no number is left out


def test_the_chain_says_what_a_run_is_to_have(tmp_path: Path) -> None:
    manifest(tmp_path / "work", "corpus")
    write(tmp_path / "work" / "report.json", {"chain": ["corpus", "prune", "count"]})
    assert read_run(tmp_path / "work").missing == ("prune has not begun.", "count has not begun.")


def test_what_is_not_of_the_run_is_left_out(work: Path) -> None:
    found = read_run(work, sure=("corpus", "vocabulary"))
    assert (found.pruned, found.evaluated, found.curves, found.planned) == (None, None, (), None)
    assert {stage.name for stage in found.stages if stage.state == "done"} == {"corpus", "vocabulary"}


def test_an_evaluation_of_before_has_no_examples(work: Path, tmp_path: Path) -> None:
    for path in (work / "evaluate" / "tests").iterdir():
        path.unlink()
    (work / "evaluate" / "tests").rmdir()
    text, _ = page(tmp_path, work)
    assert "no examples" in text and "<h2>Examples" not in text


def test_manifests_of_before_have_no_cost(work: Path, tmp_path: Path) -> None:
    for path in work.glob("*/manifest.json"):
        content = json.loads(path.read_text())
        del content["cost"]
        path.write_text(json.dumps(content))
    _, root = page(tmp_path, work)
    stages = {row[0]: row[1:3] for row in rows(section(root, "What each stage did and cost")) if row}
    assert stages["corpus"] == ["", ""] and stages["distill"] == ["60 h 0 min", ""]


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("corpus/manifest.json", "{", "damaged"),
        ("corpus/manifest.json", '{"stage": "corpus", "summary": 5}', "no object"),
        ("report.json", "[1]", "damaged"),
        ("evaluate/scores.json", '{"tests": []}', "systems is not there"),
        ("evaluate/scores.json", '{"tests": [], "systems": [{"name": 5}]}', "systems"),
        ("evaluate/scores.json", "[" * 100_000, "damaged"),
        ("evaluate/outputs/pack/dev.txt", "one line\n", "1 lines for 40 sentences"),
        ("prune/checkpoint/prune.json", '{"before": {}, "after": {}, "kept": {}}', "is not there"),
        ("prune/checkpoint/prune.json", json.dumps({**PRUNED, "kept": {"encoder.0.ffn": {"neurons": "x"}}}), "damaged"),
        ("plan/plan.json", '{"candidates": [{}], "budget": {"bytes": 1}, "fit": {"machine": ""}}', "is not there"),
        ("plan/plan.json", '{"candidates": [], "budget": {"bytes": 1}, "fit": {"machine": ""}}', "without"),
    ],
)
def test_what_is_damaged_is_one_line(
    work: Path, file: str, content: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write(work / file, content)
    assert cli.main(["report", str(work)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    assert str(work / file) in err and message in err
    assert not (work / "report.html").exists()


def test_what_is_no_work_folder_is_one_line(work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "foreign" / "corpus").mkdir(parents=True)
    write(tmp_path / "foreign" / "corpus" / "manifest.json", '{"stage": "something else"}')
    for arguments, message in (
        ([tmp_path / "nowhere"], "no such folder"),
        ([tmp_path / "foreign"], "no stage of mobilenmt compress has begun here"),
        ([work / "distill"], "the folder of one stage"),
        ([work, work / ".." / "work"], "named twice"),
        ([work, "--output", tmp_path], "a folder, not a file"),
        ([work, "--output", tmp_path / "none" / "a.html"], "its folder is not there"),
        ([], "name at least one work folder"),
    ):
        assert cli.main(["report", *map(str, arguments)]) == 2
        err = capsys.readouterr().err
        assert message in err and err.count("\n") == 1


def test_a_page_that_cannot_be_made_leaves_the_old_one(work: Path, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text("old")
    write(work / "evaluate" / "scores.json", "{")
    with pytest.raises(ReportError):
        report([work], tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text() == "old"
    assert not list(tmp_path.glob("*.tmp-*"))


def test_the_command_needs_no_library_of_training(work: Path, tmp_path: Path) -> None:
    code = f"""
import sys
names = ["accelerate", "matplotlib", "numpy", "onnx", "onnxruntime", "sacrebleu", "tokenizers", "torch", "transformers"]
sys.modules.update(dict.fromkeys(names))
from mobilenmt import cli
sys.exit(cli.main(["report", {str(work)!r}, "--markdown", {str(tmp_path / "a.md")!r}]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment())
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [str(work / "report.html"), str(tmp_path / "a.md")]
    assert (tmp_path / "a.md").read_text().startswith("# made-up")


# --- figures ----------------------------------------------------------------------------------------------------------


def test_figures_as_people_write_them() -> None:
    assert [size(value) for value in (None, 12, 999, 1500, 999_499, 999_999, 6_540_000, 1.44e9)] == [
        *("", "12 bytes", "999 bytes", "1.5 kB", "999 kB", "1,000 kB", "6.54 MB", "1.44 GB")
    ]
    assert [duration(value) for value in (None, 0.534, 61.5, 119, 150, 7200, 12_345)] == [
        *("", "0.534 s", "61.5 s", "119 s", "2 min", "2 h 0 min", "3 h 26 min")
    ]
    assert [change(value) for value in (None, 0.04, -0.04, 1.25, -10.0, -0.06)] == [
        *("", "0.0", "0.0", "+1.2", "−10.0", "−0.1")
    ]


def test_a_plan_is_told_with_what_came_of_it(tmp_path: Path) -> None:
    """The made-up pack has 1,500,000 bytes."""
    shape = {"d_model": 96, "encoder_layers": 6, "decoder_layers": 2, "encoder_ffn_dim": 384, "decoder_ffn_dim": 192}
    chosen = {"bytes": 1_480_000, "seconds": 2.5e-4, "shape": shape, "vocabulary": 2000}
    run = read_run(make_run(tmp_path / "run"))
    told = planned(replace(run, planned=Planned(1_510_000, "a phone", (chosen,))))
    assert told == (
        "Asked for 1,510,000 bytes, planned 1,480,000, made 1,500,000; 0.25 ms a sentence predicted on a phone. "
        "Chosen: 96 wide, FFN 384 and 192, 6 + 2 layers, 2,000 pieces."
    )
    told = planned(replace(run, planned=Planned(1_490_000, "", ({"bytes": 1, "seconds": 1e-3},))))
    assert told == (
        "Asked for 1,490,000 bytes, planned 1, made 1,500,000, 10,000 more than asked; 1 ms a sentence predicted."
    )
    assert planned(replace(run, planned=None)) == ""
