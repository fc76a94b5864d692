"""Who runs next: admission of waiting sequences, and fair turns for running groups.

Plain Python policy without tensors. A group is a batch of sequences of one model, admitted
together. Time goes in rounds: at the start of a round one new group may be admitted and
reads its prompts, then every group takes one decode step, in order of admission. So neither
a stream of new requests nor a long generation can keep a group waiting: between two turns of
its own there are at most `max_groups` others. A group of texts to label is done after its
first turn.

Waiting is first come, first served: the head of the queue is never passed over, except
that sequences of its own model ride along in its group.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from core.engine.request import AnyRequest, ModelKey, Sequence

AnySequence = Sequence[Any]


@dataclass(frozen=True)
class Limits:
    """Bounds of what is held at once.

    `max_batch` counts running sequences of all groups together. A request is taken while
    fewer than `max_waiting` sequences wait, whatever its own number of choices or texts. Bases and
    adapters of running groups stay resident, so their numbers bound admission as well.
    """

    max_batch: int
    max_groups: int
    max_waiting: int
    max_bases: int
    max_adapters: int

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 1:
                raise ValueError(f"{name} is {value}; it must be at least 1.")


@dataclass(eq=False)
class Group:
    """Sequences that run in one batch; rows of the batch are in the order of `sequences`."""

    model: ModelKey
    sequences: list[AnySequence] = field(default_factory=list)


@dataclass(frozen=True)
class Prefill:
    """The first turn of a new group: its prompts."""

    group: Group


@dataclass(frozen=True)
class Decode:
    """A turn of a running group: one more token for each sequence."""

    group: Group


@dataclass(frozen=True)
class Score:
    """The only turn of a group of texts to label."""

    group: Group


Turn = Prefill | Decode | Score


class Scheduler:
    """Queue, running groups and whose turn it is. Not thread-safe; the engine holds its lock."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.waiting: deque[AnySequence] = deque()
        self.groups: list[Group] = []
        self._rest_of_round: deque[Group] = deque()

    def can_add(self) -> bool:
        return len(self.waiting) < self.limits.max_waiting

    def add(self, request: AnyRequest) -> list[AnySequence]:
        """Queue every choice or text of a request; call only while `can_add()`."""
        sequences: list[AnySequence] = [
            Sequence(request, index) for index in range(request.sequences)
        ]
        self.waiting.extend(sequences)
        return sequences

    def schedule(self) -> Turn | None:
        """Return the next turn, None when there is nothing to do."""
        if not self._rest_of_round:
            admitted = self.admit() if self.can_admit() else None
            self._rest_of_round.extend(self.groups)
            if admitted is not None:
                scores = admitted.model.task == "classification"
                return Score(admitted) if scores else Prefill(admitted)
        if self._rest_of_round:
            return Decode(self._rest_of_round.popleft())
        return None

    def can_admit(self) -> bool:
        if not self.waiting or len(self.groups) >= self.limits.max_groups or self._room() < 1:
            return False
        models = {group.model for group in self.groups} | {self.waiting[0].request.model}
        bases = {model.base_key for model in models}
        adapters = {model for model in models if model.adapter_sha256 is not None}
        return len(bases) <= self.limits.max_bases and len(adapters) <= self.limits.max_adapters

    def admit(self) -> Group:
        """Make a group of the head of the queue and those of its model, as far as there is room."""
        model = self.waiting[0].request.model
        of_model = [sequence for sequence in self.waiting if sequence.request.model == model]
        group = Group(model, of_model[: self._room()])
        admitted = set(group.sequences)
        self.waiting = deque(sequence for sequence in self.waiting if sequence not in admitted)
        self.groups.append(group)
        return group

    def retire(self, group: Group, sequences: Iterable[AnySequence]) -> None:
        """Take sequences out of their group; a group without sequences is gone."""
        gone = set(sequences)
        group.sequences = [sequence for sequence in group.sequences if sequence not in gone]
        if not group.sequences:
            self.groups.remove(group)
            if group in self._rest_of_round:
                self._rest_of_round.remove(group)

    def withdraw(self, request: AnyRequest) -> None:
        """Forget what still waits of a request; its running sequences are retired by the engine."""
        self.waiting = deque(each for each in self.waiting if each.request is not request)

    def _room(self) -> int:
        return self.limits.max_batch - sum(len(group.sequences) for group in self.groups)
