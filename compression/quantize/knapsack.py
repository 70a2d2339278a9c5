"""One option for each of many things, at the least cost within a budget: the multiple-choice knapsack, exactly."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

_MOST_STEPS = 200_000
"""Steps that a budget is divided into at most; with fewer bytes a step than that, sizes are rounded up to steps."""


class TooSmallError(ValueError):
    """Not even the smallest options fit."""

    def __init__(self, smallest: int) -> None:
        super().__init__(f"the smallest options take {smallest}")
        self.smallest = smallest
        """What they take."""


def choose(options: Sequence[Sequence[tuple[int, float]]], budget: int) -> list[int]:
    """Which option of each group to take, for the least sum of costs.

    Dynamic programming over the budget (Dudzinski & Walukiewicz 1987), in steps of the greatest common divisor of all
    differences of sizes: exact, unless that makes more than 200,000 steps; then sizes count as whole steps, so that a
    choice always fits and may be a little smaller than it could be.

    Args:
        options: for each group its options, (size, cost) each. Of equal costs the smaller size is taken.
        budget: what the sizes may sum up to.

    Returns:
        The index of an option for each group.

    Raises:
        TooSmallError: nothing fits.
    """
    least = [min(size for size, _ in group) for group in options]
    spare = budget - sum(least)
    if spare < 0:
        raise TooSmallError(sum(least))
    if spare >= sum(max(size for size, _ in group) - low for group, low in zip(options, least, strict=True)):
        return [min(range(len(group)), key=lambda one: (group[one][1], group[one][0])) for group in options]
    more = [[size - low for size, _ in group] for group, low in zip(options, least, strict=True)]
    step = math.gcd(*(size for group in more for size in group)) or 1
    step = max(step, -(-spare // _MOST_STEPS))
    steps = min(spare // step, sum(-(-max(group) // step) for group in more))
    best = np.zeros(steps + 1)
    taken: list[npt.NDArray[np.int16]] = []
    for group, sizes in zip(options, more, strict=True):
        found = np.full(steps + 1, np.inf)
        choice = np.zeros(steps + 1, np.int16)
        for index in sorted(range(len(group)), key=lambda one: sizes[one]):
            size = -(-sizes[index] // step)
            if size > steps:
                continue
            cost = best[: steps + 1 - size] + group[index][1]
            better = cost < found[size:]
            found[size:][better] = cost[better]
            choice[size:][better] = index
        best = found
        taken.append(choice)
    left, chosen = steps, []
    for choice, sizes in zip(reversed(taken), reversed(more), strict=True):
        index = int(choice[left])
        chosen.append(index)
        left -= -(-sizes[index] // step)
    return chosen[::-1]
