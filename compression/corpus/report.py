"""What became of the pairs of a corpus: counts for each rule and file, and a sample of what each rule dropped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from mobilenmt.compression.corpus.readers import Malformed
from mobilenmt.runtime.atomic import atomic_path

_LINES_SHOWN = 20  # numbers of malformed lines told for each file
_IN_TEXT = 5  # examples a rule in report.md; all are in dropped.tsv


@dataclass
class _File:
    name: str
    read: int = 0
    kept: int = 0
    malformed: int = 0
    malformed_lines: list[str] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)


class Report:
    """Counts along the stage.

    :param names: of the files.
    :param seed: of the samples: of every rule, each dropped pair is shown with the same chance (Vitter's reservoir).
    :param examples: pairs shown for each rule.
    """

    def __init__(self, names: list[str], seed: int, examples: int) -> None:
        self._files = [_File(name) for name in names]
        self._seed = seed
        self._examples = examples
        self._random: dict[str, Random] = {}
        self._seen: Counter[str] = Counter()
        self._sample: dict[str, list[tuple[int, int, str, str]]] = {}
        self._tags: Counter[str] = Counter()
        self._words = [0, 0]

    def read(self, file: int) -> None:
        """A pair was read."""
        self._files[file].read += 1

    def malformed(self, file: int, line: Malformed) -> None:
        """A line that is no pair."""
        found = self._files[file]
        found.read += 1
        found.malformed += 1
        if len(found.malformed_lines) < _LINES_SHOWN:
            found.malformed_lines.append(f"{line.number}: {line.reason}")
        self._remember("malformed", file, line.number, line.text, line.reason)

    def dropped(self, rule: str, file: int, line: int, source: str, target: str) -> None:
        """A rule dropped a pair."""
        self._files[file].dropped[rule] += 1
        self._remember(rule, file, line, source, target)

    def kept(self, file: int, tag: str, source: str, target: str) -> None:
        """A pair stays."""
        self._files[file].kept += 1
        self._tags[tag] += 1
        self._words[0] += source.count(" ") + 1
        self._words[1] += target.count(" ") + 1

    def summary(self) -> dict[str, Any]:
        """All counts, as they go into report.json."""
        dropped: Counter[str] = sum((file.dropped for file in self._files), Counter())
        return {
            "pairs": sum(file.kept for file in self._files),
            "read": sum(file.read for file in self._files),
            "malformed": sum(file.malformed for file in self._files),
            "dropped": dict(dropped.most_common()),
            "words": {"source": self._words[0], "target": self._words[1]},
            "tags": dict(self._tags.most_common()),
            "files": [
                {
                    "name": file.name,
                    "read": file.read,
                    "kept": file.kept,
                    "malformed": file.malformed,
                    "malformed_lines": file.malformed_lines,
                    "dropped": dict(file.dropped.most_common()),
                }
                for file in self._files
            ],
        }

    def write_text(self, folder: Path, rules: Mapping[str, str]) -> None:
        """Write report.md and dropped.tsv (rule, file, line, source, target)."""
        with atomic_path(folder / "dropped.tsv") as temporary:
            lines = ["rule\tfile\tline\tsource\ttarget\n"]
            for rule in ("malformed", *rules):
                for file, line, source, target in sorted(self._sample.get(rule, ())):
                    lines.append(f"{rule}\t{self._files[file].name}\t{line}\t{_flat(source)}\t{_flat(target)}\n")
            temporary.write_text("".join(lines), encoding="utf-8", errors="replace")
        with atomic_path(folder / "report.md") as temporary:
            temporary.write_text("\n".join(self._markdown(rules)) + "\n", encoding="utf-8", errors="replace")

    def _markdown(self, rules: Mapping[str, str]) -> list[str]:
        summary = self.summary()
        used = [rule for rule in rules if rule in summary["dropped"]]
        words = summary["words"]
        kept = f"{summary['pairs']:,} of {summary['read']:,} pairs kept"
        lines = [
            "# Corpus",
            "",
            f"{kept}: {words['source']:,} source words, {words['target']:,} target words.",
            "",
            f"| file | read | malformed | {''.join(f'{rule} | ' for rule in used)}kept |",
            "|---" * (4 + len(used)) + "|",
        ]
        for file in self._files:
            counts = "".join(f"{file.dropped[rule]:,} | " for rule in used)
            lines.append(
                f"| {file.name.replace('|', '/')} | {file.read:,} | {file.malformed:,} | {counts}{file.kept:,} |"
            )
        lines += ["", "| tag | pairs |", "|---|---|"]
        lines += [f"| {tag.replace('|', '/')} | {count:,} |" for tag, count in summary["tags"].items()]
        for file in self._files:
            if file.malformed:
                more = ", …" if file.malformed > len(file.malformed_lines) else ""
                lines += ["", f"Malformed lines of {file.name}: {'; '.join(file.malformed_lines)}{more}"]
        for rule in used:
            lines += ["", f"## {rule}: {rules[rule]}", ""]
            for index, line, source, target in sorted(self._sample.get(rule, [])[:_IN_TEXT]):
                name = self._files[index].name
                lines.append(f"- {name}, line {line}: `{_short(source)}` / `{_short(target)}`")
        return lines

    def _remember(self, rule: str, file: int, line: int, source: str, target: str) -> None:
        self._seen[rule] += 1
        sample = self._sample.setdefault(rule, [])
        if len(sample) < self._examples:
            sample.append((file, line, source, target))
            return
        random = self._random.get(rule)
        if random is None:
            random = self._random[rule] = Random(f"{self._seed} {rule}")
        at = random.randrange(self._seen[rule])
        if at < self._examples:
            sample[at] = (file, line, source, target)


def _flat(text: str) -> str:
    return " ".join(text.split()) if any(mark in text for mark in "\t\n\r") else text


def _short(text: str) -> str:
    return _flat(text).replace("`", "'")[:200]
