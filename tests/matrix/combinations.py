"""Every combination of family, objective and strategy that exists, and a subset that covers it."""

from dataclasses import dataclass
from itertools import cycle
from typing import get_args

from core.catalog.combinations import require_combination
from core.catalog.families import FAMILIES
from core.catalog.objectives import OBJECTIVES, OBJECTIVES_OF
from core.catalog.strategies import STRATEGIES
from core.errors import InvalidRequest
from core.spec.objective import Task


@dataclass(frozen=True)
class Combination:
    family: str
    task: Task
    objective: str
    strategy: str

    @property
    def id(self) -> str:
        return f"{self.family}-{self.task}-{self.objective}-{self.strategy}"


def is_possible(case: Combination) -> bool:
    try:
        require_combination(case.family, case.task, case.objective, case.strategy)
    except InvalidRequest:
        return False
    return True


EVERY = [
    Combination(family, task, objective, strategy)
    for family in FAMILIES
    for task in get_args(Task)
    for objective in OBJECTIVES
    for strategy in STRATEGIES
]

SUPPORTED = [case for case in EVERY if is_possible(case)]


def covering() -> list[Combination]:
    """Return combinations in which every strategy meets every objective of every task.

    The families take turns, so that each of them is there with several strategies.
    """
    chosen = []
    for task, objectives in OBJECTIVES_OF.items():
        able = {case.family for case in SUPPORTED if case.task == task}
        families = cycle(sorted(able, reverse=True))
        for objective in objectives:
            for strategy in STRATEGIES:
                case = Combination(next(families), task, objective, strategy)
                while not is_possible(case):
                    case = Combination(next(families), task, objective, strategy)
                chosen.append(case)
    unseen = set(FAMILIES) - {case.family for case in chosen}
    return chosen + [
        next(case for case in SUPPORTED if case.family == name) for name in sorted(unseen)
    ]


COVERING = covering()


def daily() -> list[Combination]:
    """Return a part of the covering subset in which each value is met."""
    chosen: list[Combination] = []
    met: set[tuple[str, ...]] = set()
    for case in COVERING:
        facts = {("family", case.family), ("strategy", case.strategy), (case.objective, case.task)}
        if not facts <= met:
            chosen.append(case)
            met |= facts
    return chosen


DAILY = daily()
