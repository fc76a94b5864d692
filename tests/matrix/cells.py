"""Every combination of family, objective and strategy that exists, and a subset that covers it."""

from dataclasses import dataclass
from itertools import cycle
from typing import get_args

from core.catalog.cells import require_cell
from core.catalog.families import FAMILIES
from core.catalog.objectives import OBJECTIVES, OBJECTIVES_OF
from core.catalog.strategies import STRATEGIES
from core.errors import InvalidRequest
from core.spec.objective import Task


@dataclass(frozen=True)
class Cell:
    family: str
    task: Task
    objective: str
    strategy: str

    @property
    def id(self) -> str:
        return f"{self.family}-{self.task}-{self.objective}-{self.strategy}"


def is_possible(cell: Cell) -> bool:
    try:
        require_cell(cell.family, cell.task, cell.objective, cell.strategy)
    except InvalidRequest:
        return False
    return True


COMBINATIONS = [
    Cell(family, task, objective, strategy)
    for family in FAMILIES
    for task in get_args(Task)
    for objective in OBJECTIVES
    for strategy in STRATEGIES
]

CELLS = [cell for cell in COMBINATIONS if is_possible(cell)]


def covering() -> list[Cell]:
    """Return cells in which every strategy meets every objective of every task.

    The families take turns, so that each of them is there with several strategies.
    """
    chosen = []
    for task, objectives in OBJECTIVES_OF.items():
        able = {cell.family for cell in CELLS if cell.task == task}
        families = cycle(sorted(able, reverse=True))
        for objective in objectives:
            for strategy in STRATEGIES:
                cell = Cell(next(families), task, objective, strategy)
                while not is_possible(cell):
                    cell = Cell(next(families), task, objective, strategy)
                chosen.append(cell)
    unseen = set(FAMILIES) - {cell.family for cell in chosen}
    return chosen + [next(cell for cell in CELLS if cell.family == name) for name in sorted(unseen)]


COVERING = covering()
