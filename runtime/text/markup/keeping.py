"""What a document says must stay (code, ``translate="no"``), as one more rule of what is kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from mobilenmt.runtime.text.fold import Folded
from mobilenmt.runtime.text.kept import Rule, Rules, default_rules
from mobilenmt.runtime.text.markup.document import Unit

RULE = "markup"
"""The name of the rule."""

_OPEN = 4  # groups that a unit is compared with
_MOST_WORDS = 64
_LONGEST = 1 << 15  # characters: a group is looked through for each of its units


def keeping(rules: Rules | None, words: Sequence[str]) -> Rules:
    """The rules (None for all) and, before them, one that finds some words wherever they stand by themselves.

    Args:
        rules: those of the call.
        words: what is kept in a unit, in every form in which a host may look for it.
    """
    base = default_rules() if rules is None else rules
    wanted = [word for word in dict.fromkeys(words) if word.strip()]

    def find(text: str) -> list[tuple[int, int]]:
        found: list[tuple[int, int]] = []
        for word in wanted:
            at = text.find(word)
            while at >= 0:
                end = at + len(word)
                if _alone(text, at, end):
                    found.append((at, end))  # of those that overlap the rules take one
                    at = end - 1
                at = text.find(word, at + 1)
        return found

    quick: Callable[[str], object] | None = None
    if base.quick is not None:
        asked = base.quick

        def quick(text: str) -> object:
            return any(word in text for word in wanted) or asked(text)

    return replace(base, rules=(Rule(RULE, find), *base.rules), quick=quick)


def kept_words(unit: Unit, fold: Callable[[str], Folded]) -> tuple[str, ...]:
    """What a unit keeps, as it is written and as the model sees it."""
    kept = [unit.text[start:end] for start, end in unit.kept]
    return tuple(dict.fromkeys([*kept, *(fold(words).text for words in kept)]))


@dataclass
class _Group:
    """Units that are searched together, since what one keeps stands in no other that does not keep it."""

    words: dict[str, None]
    text: str
    members: list[int]

    def takes(self, words: Sequence[str], texts: Sequence[str]) -> bool:
        """Whether one more finds here just what it would find alone, and all others too."""
        own = set(words)
        new = own.difference(self.words)
        if len(self.words) + len(new) > _MOST_WORDS or any(word in self.text for word in new):
            return False
        return not any(word in text for word in self.words if word not in own for text in texts)


def shared(units: Sequence[Unit], fold: Callable[[str], Folded]) -> list[tuple[str, ...]]:
    """What each unit may be told to keep so that many can be translated at once, with the same result.

    Units with the same words are searched together, so each gets those of others too, where none of them stands in it.

    Args:
        units: of documents.
        fold: what happens to a text before the model.
    """
    found = [kept_words(unit, fold) for unit in units]
    groups: list[_Group] = []
    closed: list[_Group] = []
    for index, unit in enumerate(units):
        words = [word for word in found[index] if word.strip()]
        if not words:
            continue
        forms = unit.text, fold(unit.text).text
        group = next((group for group in groups if group.takes(words, forms)), None)
        if group is None:
            group = _Group({}, "", [])
            groups.append(group)
            closed += groups[:-_OPEN]
            del groups[:-_OPEN]
        group.words.update(dict.fromkeys(words))
        group.text = "\n".join((group.text, *forms))
        group.members.append(index)
        if len(group.text) > _LONGEST:
            groups.remove(group)
            closed.append(group)
    for group in [*closed, *groups]:
        together = tuple(group.words)
        for index in group.members:
            found[index] = together
    return found


def _alone(text: str, start: int, end: int) -> bool:
    """Whether no letter or figure stands right before or behind a stretch that begins or ends with one."""
    before = start > 0 and text[start].isalnum() and text[start - 1].isalnum()
    return not before and not (text[end - 1].isalnum() and text[end : end + 1].isalnum())
