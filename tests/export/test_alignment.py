"""The aligner finds the links that text was made with; the head that a pack names is the one that looks at them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from mobilenmt import ExportError, InputError, Pack
from mobilenmt.cli import main
from mobilenmt.export.alignment.aligner import align, error_rate, symmetrize
from mobilenmt.export.alignment.heads import describe, measure_heads, read_texts
from mobilenmt.export.alignment.words import Words
from mobilenmt.export.export import export
from mobilenmt.export.native.upgrade import set_alignment
from mobilenmt.runtime.hypothesis import SearchOptions
from mobilenmt.runtime.manifest import Alignment
from mobilenmt.runtime.native import LIBRARY
from mobilenmt.runtime.native.engine import NativeEngine
from mobilenmt.runtime.onnx.engine import Engine
from tiny_models import WORDS, make_checkpoint


def made_up(count: int, seed: int = 0) -> tuple[list[tuple[list[int], list[int]]], list[frozenset[tuple[int, int]]]]:
    """Pairs in which word w becomes w + 100, neighbours change places, and some words come from nowhere or go."""
    random = np.random.default_rng(seed)
    pairs, links = [], []
    for _ in range(count):
        source = random.zipf(1.3, random.integers(3, 12)) % 60
        order = list(range(len(source)))
        for place in range(len(order) - 1):
            if random.random() < 0.2:
                order[place], order[place + 1] = order[place + 1], order[place]
        order = [place for place in order if random.random() < 0.95]
        target, true = [], set()
        for place in order:
            if random.random() < 0.1:
                target.append(int(200 + random.integers(5)))
            true.add((place, len(target)))
            target.append(int(source[place]) + 100)
        pairs.append((source.tolist(), target))
        links.append(frozenset(true))
    return pairs, links


def test_the_links_of_made_up_text_are_found() -> None:
    pairs, links = made_up(1500)
    found = align(pairs)
    assert error_rate(found, links) < 0.1
    plain = [frozenset((min(j, len(source) - 1), j) for j in range(len(target))) for source, target in pairs]
    assert error_rate(plain, links) > 0.3


def test_empty_sides_and_rates() -> None:
    assert align([]) == []
    pairs, _ = made_up(50)
    assert [*map(len, align([([], [5]), ([3], []), *pairs])[:2])] == [0, 0]
    one, other = frozenset({(0, 0), (1, 1)}), frozenset({(0, 0), (2, 2), (3, 3)})
    assert error_rate([one], [one]) == 0.0
    assert error_rate([one], [other]) == pytest.approx(1 - 2 / 5)
    assert error_rate([], []) == 0.0


def test_both_directions_are_put_together() -> None:
    """By hand: (1, 2) is a neighbour and links a free word, (4, 3) links two, (0, 1) none."""
    forward, backward = {(0, 0), (1, 1), (1, 2), (3, 4)}, {(0, 0), (1, 1), (0, 1), (3, 4), (4, 3)}
    assert symmetrize(forward, backward, 5, 5) == {(0, 0), (1, 1), (1, 2), (3, 4), (4, 3)}


def test_tokens_belong_to_the_word_that_most_of_their_letters_are_in() -> None:
    words = Words.of_pieces(["\u2581Der", "\u2581H", "und", "-Z", "ug", ".", "\u2581", "3"])
    assert words.words == ("der", "hund", "-", "zug", ".", "3")
    assert words.of == (0, 1, 1, 3, 3, None, None, 5)
    assert [words.has_letters(index) for index in range(6)] == [True, True, False, True, False, True]


# -- heads


def copying(folder: Path, head: int) -> Path:
    """A checkpoint one of whose heads looks where its word is in the source: queries and keys are the embeddings,
    which it knows apart, and nothing else adds to them. Words are translated into themselves."""
    width = 64
    checkpoint = make_checkpoint(folder, d_model=width, encoder_layers=1, decoder_layers=2)
    file = checkpoint / "model.safetensors"
    tensors = safetensors.torch.load_file(file)
    generator = torch.Generator().manual_seed(0)
    for name, tensor in tensors.items():
        if ".layers." in name and not name.endswith("layer_norm.weight"):
            tensors[name] = torch.zeros_like(tensor) if "cross" not in name else tensor
    for name in [*tensors]:
        if name.endswith("layer_norm.weight"):
            tensors[name] = torch.ones_like(tensors[name])
    size = width // 4
    part = slice(head * size, (head + 1) * size)
    project = torch.randn(size, width, generator=generator)
    for name, factor in (("q_proj", 3.0), ("k_proj", 1.0)):
        weight = torch.zeros(width, width)
        weight[part] = project * factor
        tensors[f"model.decoder.layers.1.encoder_attn.{name}.weight"] = weight
    safetensors.torch.save_file(tensors, file, {"format": "pt"})
    return checkpoint


def texts(count: int) -> list[tuple[str, str]]:
    random = np.random.default_rng(0)
    lines = [" ".join(random.choice(WORDS, random.integers(3, 9), replace=False)) for _ in range(count)]
    return [(line, line) for line in lines]


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    folder = tmp_path_factory.mktemp("copying")
    return export(copying(folder / "checkpoint", 2), folder / "en-en", pairs=texts(300))


def test_the_head_that_aligns_is_found_when_the_pack_is_made(pack: Pack) -> None:
    """What reads a word looks at it: a step behind the one that wrote it."""
    found = pack.manifest.alignment
    assert found is not None and found.aer is not None
    assert (found.layer, found.head, found.later) == (1, 2, 1)
    assert found.aer < 0.05
    measured = measure_heads(pack, texts(300), 50)
    assert measured.best.head == 2 and measured.sentences == 50
    assert measured.heads[-1].aer > 0.4
    assert {(head.layer, head.head, head.later) for head in measured.heads} == {
        (layer, head, later) for layer in (0, 1) for head in (None, 0, 1, 2, 3) for later in (0, 1)
    }
    assert describe(measured.best).startswith("head 3 of layer 2, a step later, error rate 0.0")


def test_both_engines_look_where_it_looks(pack: Pack) -> None:
    """A forced output that says the source again is aligned with it, word by word."""
    engine = Engine(pack)
    engines = [engine] + ([NativeEngine(pack)] if LIBRARY.is_file() else [])
    for ids in ([9, 12, 30, 17, 25], [40, 8, 22]):
        for one in engines:
            for beams in (1, 2):
                asked = SearchOptions(beams, alignment=True)
                ((found,),) = one.generate([ids], [len(ids) + 3], asked, [ids[::-1]])
                assert found.alignment is not None
                assert found.alignment[: len(ids)] == tuple(range(len(ids)))[::-1]


def test_too_few_pairs_and_packs_of_old(pack: Pack, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="99 pairs"):
        measure_heads(pack, texts(99))
    for content, words in ((None, "No such file"), ("no tab\n", "text.tsv:1: no tab"), (b"\xff\ta\n", "read")):
        file = tmp_path / "text.tsv"
        if content is not None:
            file.write_bytes(content if isinstance(content, bytes) else content.encode())
        with pytest.raises(InputError, match=words):
            read_texts([file], 5)


def test_measured_lines_are_taken_evenly_from_the_first_file(tmp_path: Path) -> None:
    for name, count in (("a", 10), ("b", 3)):
        (tmp_path / name).write_text("".join(f"{name}{i}\tx\tmore\n" for i in range(count)))
    found, count = read_texts([tmp_path / "a", tmp_path / "b"], 5)
    assert count == 5
    assert [source for source, _ in found] == [
        "a0",
        "a2",
        "a4",
        "a6",
        "a8",
        "a1",
        "a3",
        "a5",
        "a7",
        "a9",
        "b0",
        "b1",
        "b2",
    ]
    assert read_texts([tmp_path / "b"], 100)[1] == 3


def test_the_command(pack: Pack, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import shutil

    folder = Path(shutil.copytree(pack.path, tmp_path / "pack"))
    set_alignment(folder, Alignment(0, None, 0))
    file = tmp_path / "text.tsv"
    file.write_text("".join(f"{source}\t{target}\n" for source, target in texts(200)))
    assert main(["align", str(folder), "--text", str(file), "--dry-run"]) == 0
    assert Pack.open(folder).manifest.alignment == Alignment(0, None, 0)
    assert main(["align", str(folder), "--text", str(file)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("head 3 of layer 2, a step later")
    assert len(lines) == 2 * 20 + 1
    stored = json.loads((folder / "pack.json").read_text())["alignment"]
    assert (stored["layer"], stored["head"], stored["later"]) == (1, 2, 1)
    assert Pack.open(folder).manifest.files["native.bin"] == pack.manifest.files["native.bin"]
    assert main(["align", str(folder)]) == 2
    assert main(["align", str(folder), "--text", str(tmp_path / "none")]) == 2


def test_a_head_that_is_none_is_refused(pack: Pack) -> None:
    for wrong in (Alignment(2, 0, 0), Alignment(0, 4, 0)):
        with pytest.raises((ExportError, Exception), match="alignment"):
            set_alignment(pack.path, wrong)
