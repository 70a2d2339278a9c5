"""`mobilenmt translate` on files with markup, with terms, rules and details."""

from __future__ import annotations

import codecs
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from command_line import environment, fails, run
from mobilenmt import Translator
from mobilenmt.documents import find_format, read_glossary, read_rules
from mobilenmt.meter import Meter
from mobilenmt.runtime.errors import DeadlineError, InputError
from places import ROOT

PACK = ROOT / "models" / "en-de"
FILM = "1\r\n00:00:01,000 --> 00:00:03,500\r\nThe dog is in the house.\r\n"
FILM_DE = "1\r\n00:00:01,000 --> 00:00:03,500\r\nDer Hund ist im Haus.\r\n"


def test_a_file_is_read_by_its_ending_and_comes_out_as_it_was_written(tmp_path: Path) -> None:
    source, target = tmp_path / "film.SRT", tmp_path / "film.de.srt"
    for mark, encoding in [
        (b"", "utf-8"),
        (codecs.BOM_UTF8, "utf-8"),
        (codecs.BOM_UTF16_LE, "utf-16-le"),
        (codecs.BOM_UTF16_BE, "utf-16-be"),
        (codecs.BOM_UTF32_LE, "utf-32-le"),
    ]:
        source.write_bytes(mark + FILM.encode(encoding))
        done = run("translate", "--pack", PACK, "--input", source, "--output", target)
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
        assert target.read_bytes() == mark + FILM_DE.encode(encoding)
    source.write_bytes("<i>café</i>\n".encode("cp1252"))
    done = run("translate", "--pack", PACK, "--input", source, "--encoding", "cp1252", "--format", "html")
    assert done.returncode == 0 and b"caf\xe9" in done.stdout.lower().replace(b"\xc9", b"\xe9"), done.stdout


def test_the_time_of_a_run_is_limited(tmp_path: Path) -> None:
    source, target = tmp_path / "a.txt", tmp_path / "b.txt"
    source.write_text("The dog is in the house.\n" * 3, encoding="utf-8")
    done = run("translate", "--pack", PACK, "--input", source, "--time-limit", 60)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode() == "Der Hund ist im Haus.\n" * 3
    late = ("translate", "--pack", PACK, "--input", source, "--time-limit", "0.001")
    fails(run(*late), "not done in the 0.001 seconds", "0 lines are done")
    target.write_text("old", encoding="utf-8")
    for form in ("text", "html", "srt"):
        fails(run(*late, "--output", target, "--format", form), "not done in the 0.001 seconds", "was not written")
    fails(run(*late, "--output", tmp_path / "new.txt"), "new.txt was not written")
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["a.txt", "b.txt"]
    assert target.read_text(encoding="utf-8") == "old"
    for wrong in ("0", "-1", "nan", "inf"):
        fails(run("translate", "--pack", PACK, "--time-limit", wrong, "Hello"), "--time-limit", wrong)


def test_lines_that_were_done_in_time_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("mobilenmt.meter.time.monotonic", lambda: now[0])
    meter = Meter(5)
    with meter.limited() as left:
        assert left == 5
    meter.add(64)
    now[0] = 6
    with (
        pytest.raises(DeadlineError, match=r"not done in the 5 seconds of --time-limit: 64 lines are done"),
        meter.limited(),
    ):
        pytest.fail("nothing is begun when the time is over")
    with Meter(None).limited() as left:
        assert left is None


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")
@pytest.mark.parametrize(
    ("name", "text", "shown"),
    [
        ("a.txt", "I am hungry.\n" * 65, [b"64 lines", b"65 lines"]),
        ("a.html", "<p>I am hungry.</p>\n" * 65, [b"0 of 65 sentences", b"65 of 65 sentences"]),
    ],
)
def test_a_terminal_sees_how_far_a_file_is_and_is_empty_behind_it(
    tmp_path: Path, name: str, text: str, shown: list[bytes]
) -> None:
    source = tmp_path / name
    source.write_text(text, encoding="utf-8")
    ours, theirs = os.openpty()
    command = [sys.executable, "-m", "mobilenmt", "translate", "--pack", PACK, "--input", source]
    done = subprocess.run([*map(str, command)], stdout=subprocess.PIPE, stderr=theirs, check=True, env=environment())
    os.close(theirs)
    seen = os.read(ours, 1 << 16)
    os.close(ours)
    assert all(item in seen for item in shown), seen
    assert seen.endswith(b"\r\x1b[K") and b"\n" not in seen
    assert done.stdout == text.replace("I am hungry.", "Ich bin hungrig.").encode()


def test_a_file_can_be_replaced_by_its_translation(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("<p>The <b>dog</b> is in the house.</p>", encoding="utf-8")
    assert run("translate", "--pack", PACK, "--input", page, "--output", page).returncode == 0
    assert page.read_text(encoding="utf-8") == "<p>Der <b>Hund</b> ist im Haus.</p>"


def test_the_option_counts_for_pipes_and_texts_and_above_an_ending(tmp_path: Path) -> None:
    page = "<p>The <b>dog</b> is in the house.</p>\n"
    german = "<p>Der <b>Hund</b> ist im Haus.</p>\n"
    piped = run("translate", "--pack", PACK, "--format", "html", stdin=page.encode())
    assert piped.stdout.decode() == german
    assert run("translate", "--pack", PACK, "--format", "html", page.strip()).stdout.decode() == german
    source = tmp_path / "page.html"
    source.write_text("I am hungry.\n", encoding="utf-8")
    plain = run("translate", "--pack", PACK, "--format", "text", "--input", source)
    assert plain.stdout.decode() == "Ich bin hungrig.\n"
    whole = run("translate", "--pack", PACK, "--format", "html", "--json", stdin=page.encode())
    found = json.loads(whole.stdout)
    assert (found["source"], found["text"], found["sentences"]) == (page, german, [])


@pytest.mark.parametrize(
    ("format", "name", "wanted"),
    [
        (None, None, "text"),
        (None, "a.md", "markdown"),
        (None, "a.VTT", "vtt"),
        (None, "a.txt", "text"),
        (None, "a.log", "text"),
        (None, "html", "text"),
        ("srt", "a.md", "srt"),
        ("text", "a.md", "text"),
    ],
)
def test_formats_of_names(format: str | None, name: str | None, wanted: str) -> None:
    assert find_format(format, None if name is None else Path(name)) == wanted


def test_details_are_those_of_the_translator() -> None:
    text = "The dog is in the house."
    done = run("translate", "--pack", PACK, "--json", "--details", text)
    sentence = json.loads(done.stdout)["sentences"][0]
    expected = Translator(PACK).translate_batch([text], details=True)[0].sentences[0]
    assert sentence == expected.to_dict() and sentence["links"] and 0 < sentence["confidence"] < 1
    without = json.loads(run("translate", "--pack", PACK, "--json", text).stdout)["sentences"][0]
    assert (without["confidence"], without["links"]) == (None, [])


def test_terms_and_rules(tmp_path: Path) -> None:
    terms = tmp_path / "terms.tsv"
    terms.write_bytes("\ufeff# pets\ndog\tKöter\r\n\n".encode())
    arguments = ("translate", "--pack", PACK, "The dog is in the house.")
    assert "Köter" in run(*arguments, "--glossary", terms).stdout.decode()
    assert "Köter" in run(*arguments, "--glossary", terms, "--glossary-method", "placeholders").stdout.decode()
    kept = run(*arguments, "--keep", "words=(?<![a-z])house", "--keep", "more=dog").stdout.decode()
    assert "house" in kept and "dog" in kept
    assert "max@example.com" in run("translate", "--pack", PACK, "Write to max@example.com.").stdout.decode()


def test_rules_by_name() -> None:
    assert read_rules((), ()) is None
    rules = read_rules(["word=a=b"], ["email", "url"])
    assert rules is not None and rules.get("email") is None and rules.get("url") is None
    assert [(k.start, k.end, k.rule) for k in rules.find("x a=b")] == [(2, 5, "word")]


def test_a_glossary_in_another_encoding(tmp_path: Path) -> None:
    path = tmp_path / "terms.tsv"
    path.write_bytes("dog\tKöter\n".encode("utf-16"))
    assert read_glossary(path, "en", None).terms[0].target == "Köter"
    path.write_bytes("dog\tKöter\nbad line\n".encode("cp1252"))
    with pytest.raises(InputError, match=r"terms\.tsv: line 2"):
        read_glossary(path, None, "cp1252")


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--format", "docx"], "there is no 'docx'; the formats are"),
        (["--format", "html", "--unwrap"], "--unwrap is for plain text"),
        (["--format", "html", "--n-best", "2", "--json"], "n_best must be 1"),
        (["--details"], "--details needs --json"),
        (["--keep", "word"], "expected NAME=REGEX"),
        (["--keep", "word=("], "not a regular expression"),
        (["--keep", "Word=x"], "name"),
        (["--no-keep", "words"], "no rule is named 'words'"),
        (["--glossary", "no-such-file"], "no-such-file"),
    ],
)
def test_wrong_use_gives_one_line(arguments: list[str], word: str) -> None:
    fails(run("translate", "--pack", PACK, *arguments, "hello"), word)


def test_a_bad_line_of_a_glossary_is_named(tmp_path: Path) -> None:
    terms = tmp_path / "terms.tsv"
    terms.write_text("dog\tHund\nno tab here\n", encoding="utf-8")
    fails(run("translate", "--pack", PACK, "--glossary", terms, "hello"), "terms.tsv", "line 2", "no tab here")


def test_a_fault_leaves_no_file(tmp_path: Path) -> None:
    source, target = tmp_path / "a.html", tmp_path / "b.html"
    source.write_text("<p>hello</p>", encoding="utf-8")
    fails(run("translate", "--pack", tmp_path / "none", "--input", source, "--output", target), "no pack")
    assert not target.exists() and sorted(item.name for item in tmp_path.iterdir()) == ["a.html"]
