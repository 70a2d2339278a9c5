"""What a vocabulary costs and does: bytes, memory once loaded, tokens a word, characters that need bytes."""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from mobilenmt.compression.core.pairs import read_pairs
from mobilenmt.compression.vocabulary.vocabulary import Vocabulary
from mobilenmt.export.tokenizer import prepare_tokenizer

_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
_PROBES = 200  # sentences a fresh process encodes before its memory is read: the first ones fill lazy tables
_TIMEOUT = 120.0

# Runs in a process of its own, with nothing in memory but the runtime's own tokenizer.
_CHILD = """
import json, sys
from pathlib import Path
import tokenizers
from mobilenmt.runtime.manifest import TokenIds
from mobilenmt.runtime.tokenizer import Tokenizer

def memory():
    with open("/proc/self/smaps_rollup") as stream:
        found = dict(line.split(":") for line in stream.read().splitlines()[1:])
    return {key: int(found[key].split()[0]) * 1024 for key in ("Rss", "Anonymous")}

folder, probes, size = Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text()), int(sys.argv[3])
tokenizers.Tokenizer(tokenizers.models.BPE()).encode("warm")
before = memory()
tokenizer = Tokenizer(folder / "tokenizer.json", TokenIds(start=size - 1, eos=0, pad=size - 1, unk=1), size)
for text in probes:
    tokenizer.decode(tokenizer.encode(text))
after = memory()
print(json.dumps({key: after[key] - before[key] for key in after}))
"""


def measure(folder: Path, pairs: Path) -> dict[str, Any]:
    """Measure a vocabulary folder on pairs that it was not trained on.

    Keys: ``model``, ``size``; ``bytes`` of the tokenizer.json that goes into a pack; ``memory_bytes`` that a fresh
    process grows by when the runtime loads it and encodes some sentences (``anonymous_bytes`` of them the process's
    own; None where the system has no /proc); for ``source`` and ``target``: ``tokens_per_word`` (fertility; words are
    what spaces separate), ``characters_per_token``, ``tokens_median`` and ``tokens_99`` a sentence,
    ``characters_in_bytes`` (share of the characters that no piece holds), ``round_trip`` (share of the sentences that
    come back exactly).
    """
    vocabulary = Vocabulary.load(folder)
    data = json.loads(vocabulary.path.read_text(encoding="utf-8"))
    prepared = prepare_tokenizer(
        folder, vocab_size=vocabulary.size, target_vocab_size=vocabulary.size, eos=0, pad=vocabulary.pad, unk=1
    )
    report: dict[str, Any] = {
        "model": data["model"]["type"].lower(),
        "size": vocabulary.size,
        "bytes": len(prepared.source_json.encode()),
    }
    texts: list[str] = []
    sides = (_Side(vocabulary), _Side(vocabulary))
    stream = read_pairs(pairs)
    while batch := list(itertools.islice(stream, 1000)):
        sides[0].add([pair.source for pair in batch])
        sides[1].add([pair.target for pair in batch])
        if len(texts) < _PROBES:
            texts += [text for pair in batch for text in pair[:2]][:_PROBES]
    memory = _memory(prepared.source_json, vocabulary.size, texts)
    report["memory_bytes"] = memory.get("Rss")
    report["anonymous_bytes"] = memory.get("Anonymous")
    report["measured_on_pairs"] = sides[0].sentences
    report["source"], report["target"] = sides[0].summary(), sides[1].summary()
    return report


class _Side:
    """Counts over the sentences of one language."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._is_byte = np.array(
            [bool(_BYTE.fullmatch(piece)) for piece in vocabulary.pieces(range(vocabulary.size))], dtype=bool
        )
        self._bytes = vocabulary.pieces(range(vocabulary.size))
        self.sentences = 0
        self._words = self._characters = self._spelled = self._exact = 0
        self._lengths: list[int] = []

    def add(self, texts: list[str]) -> None:
        for text, ids in zip(texts, self._vocabulary.encode_batch(texts), strict=True):
            self.sentences += 1
            self._words += len(text.split())
            self._characters += len(text)
            self._lengths.append(len(ids))
            self._exact += self._vocabulary.decode(ids) == text
            for index in np.asarray(ids, dtype=np.int64)[self._is_byte[ids]] if ids else ():
                # a character begins at each byte that does not go on with one
                self._spelled += int(self._bytes[index][3:5], 16) & 0xC0 != 0x80

    def summary(self) -> dict[str, float]:
        tokens = sum(self._lengths)
        return {
            "tokens_per_word": round(tokens / max(1, self._words), 4),
            "characters_per_token": round(self._characters / max(1, tokens), 4),
            "tokens_median": float(np.median(self._lengths)) if self._lengths else 0.0,
            "tokens_99": float(np.percentile(self._lengths, 99)) if self._lengths else 0.0,
            "characters_in_bytes": self._spelled / max(1, self._characters),
            "round_trip": self._exact / max(1, self.sentences),
        }


def _memory(tokenizer_json: str, size: int, probes: list[str]) -> dict[str, int]:
    """Bytes that a fresh process grows by; empty where that cannot be read."""
    if not Path("/proc/self/smaps_rollup").exists():
        return {}
    with tempfile.TemporaryDirectory(prefix="mobilenmt-memory-") as scratch:
        folder = Path(scratch)
        (folder / "tokenizer.json").write_text(tokenizer_json, encoding="utf-8")
        (folder / "probes.json").write_text(json.dumps(probes), encoding="utf-8")
        command = [sys.executable, "-c", _CHILD, str(folder), str(folder / "probes.json"), str(size)]
        environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false", "PYTHONPATH": os.pathsep.join(sys.path)}
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=_TIMEOUT, check=True, env=environment
            )
            found: dict[str, int] = json.loads(done.stdout)
        except (OSError, subprocess.SubprocessError, ValueError):
            return {}  # a report without this figure is better than no vocabulary
        return found
