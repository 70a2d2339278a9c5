"""The knapsack: what it chooses fits, and nothing that fits costs less."""

from __future__ import annotations

import itertools
import random

import pytest

from mobilenmt.compression.quantize import knapsack
from mobilenmt.compression.quantize.knapsack import TooSmallError, choose

Groups = list[list[tuple[int, float]]]


def some_groups(seed: int, unit: int = 1) -> Groups:
    generator = random.Random(seed)
    return [
        [(unit * generator.randint(1, 30), generator.random()) for _ in range(generator.randint(1, 4))]
        for _ in range(generator.randint(1, 6))
    ]


def totals(groups: Groups, chosen: list[int] | tuple[int, ...]) -> tuple[int, float]:
    picked = [group[index] for group, index in zip(groups, chosen, strict=True)]
    return sum(size for size, _ in picked), sum(cost for _, cost in picked)


@pytest.mark.parametrize("unit", [1, 64])
@pytest.mark.parametrize("seed", range(25))
def test_it_finds_what_trying_everything_finds(seed: int, unit: int) -> None:
    groups = some_groups(seed, unit)
    every = [totals(groups, chosen) for chosen in itertools.product(*(range(len(group)) for group in groups))]
    sizes = sorted({size for size, _ in every})
    for budget in {sizes[0], sizes[len(sizes) // 2], sizes[len(sizes) // 2] + 1, sizes[-1], sizes[-1] + 1000}:
        size, cost = totals(groups, choose(groups, budget))
        assert size <= budget
        assert cost == pytest.approx(min(cost for size, cost in every if size <= budget))


def test_of_equal_costs_the_smaller_size_is_taken() -> None:
    assert choose([[(9, 1.0), (3, 1.0), (5, 1.0)], [(8, 0.0), (2, 0.0)]], 100) == [1, 1]


def test_a_budget_below_the_smallest_options_is_an_error_that_says_what_they_take() -> None:
    with pytest.raises(TooSmallError) as caught:
        choose([[(5, 0.0), (7, 0.0)], [(4, 1.0)]], 8)
    assert caught.value.smallest == 9


def test_a_budget_of_many_steps_is_rounded_so_that_the_choice_still_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(knapsack, "_MOST_STEPS", 7)
    for seed in range(20):
        groups = some_groups(seed)
        largest, smallest = (sum(which(size for size, _ in group) for group in groups) for which in (max, min))
        for budget in (smallest, (smallest + largest) // 2):
            assert totals(groups, choose(groups, budget))[0] <= budget
        cheapest = sum(min(cost for _, cost in group) for group in groups)
        assert totals(groups, choose(groups, largest))[1] == pytest.approx(cheapest)
