"""Policy without a device: what any order of arrivals, turns and cancellations must keep."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from core.engine.request import ModelKey, Request
from core.engine.scheduler import Decode, Group, Limits, Prefill, Scheduler
from core.spec.generation import SamplingSpec
from core.spec.run import BaseModelSpec

LIMITS = Limits(max_batch=6, max_groups=3, max_waiting=8, max_bases=1, max_adapters=2)

MODELS = [
    ModelKey(BaseModelSpec(id=base, source=f"/{base}"), adapter)
    for base in ("one", "two")
    for adapter in (None, "a", "b", "c")
]


def make_request(model: ModelKey = MODELS[0], n: int = 1) -> Request:
    return Request("r", model, (1,), SamplingSpec(seed=0, n=n), 4, frozenset())


class SchedulerMachine(RuleBasedStateMachine):
    """Requests arrive, turns are taken, sequences finish, clients leave, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.scheduler = Scheduler(LIMITS)
        self.pending = []
        """Sequences that are neither finished nor withdrawn, in order of arrival."""
        self.missed_turns: Counter[Group] = Counter()

    @precondition(lambda self: self.scheduler.can_add())
    @rule(model=st.sampled_from(MODELS), n=st.integers(1, 10))
    def add(self, model: ModelKey, n: int) -> None:
        self.pending.extend(self.scheduler.add(make_request(model, n)))

    @rule()
    def step(self) -> None:
        oldest = self.scheduler.waiting[0] if self.scheduler.waiting else None
        turn = self.scheduler.schedule()
        assert (turn is None) == (not self.pending), "work is left but nobody has the turn"
        if isinstance(turn, Prefill):
            assert oldest in turn.group.sequences, "the head of the queue was passed over"
            assert len({each.request.model for each in turn.group.sequences}) == 1
        if turn is None:
            return
        for group in self.scheduler.groups:
            self.missed_turns[group] += 1
        self.missed_turns[turn.group] = 0
        assert max(self.missed_turns[group] for group in self.scheduler.groups) <= LIMITS.max_groups

    @precondition(lambda self: self.scheduler.groups)
    @rule(data=st.data())
    def finish_some(self, data: st.DataObject) -> None:
        group = data.draw(st.sampled_from(self.scheduler.groups))
        gone = data.draw(st.sets(st.sampled_from(group.sequences), min_size=1))
        self.scheduler.retire(group, gone)
        self.pending = [each for each in self.pending if each not in gone]

    @precondition(lambda self: self.scheduler.waiting)
    @rule(data=st.data())
    def withdraw(self, data: st.DataObject) -> None:
        sequence = data.draw(st.sampled_from(list(self.scheduler.waiting)))
        waiting = set(self.scheduler.waiting)
        self.scheduler.withdraw(sequence.request)
        self.pending = [
            each
            for each in self.pending
            if each.request is not sequence.request or each not in waiting
        ]

    @invariant()
    def nothing_is_lost_or_doubled(self) -> None:
        held = [*self.scheduler.waiting]
        for group in self.scheduler.groups:
            assert group.sequences, "an empty group stayed"
            held.extend(group.sequences)
        assert Counter(held) == Counter(self.pending)

    @invariant()
    def bounds_hold(self) -> None:
        groups = self.scheduler.groups
        assert sum(len(group.sequences) for group in groups) <= LIMITS.max_batch
        assert len(groups) <= LIMITS.max_groups
        assert len({group.model.base for group in groups}) <= LIMITS.max_bases
        adapters = {group.model for group in groups if group.model.adapter_sha256 is not None}
        assert len(adapters) <= LIMITS.max_adapters

    @invariant()
    def waiting_sequences_of_a_model_keep_their_order(self) -> None:
        place = {sequence: index for index, sequence in enumerate(self.pending)}
        for model in MODELS:
            of_model = [each for each in self.scheduler.waiting if each.request.model == model]
            assert of_model == sorted(of_model, key=place.__getitem__)


TestScheduler = SchedulerMachine.TestCase
TestScheduler.settings = settings(max_examples=50, stateful_step_count=40, deadline=None)


def test_running_groups_decode_in_turn_and_new_ones_come_in_between():
    scheduler = Scheduler(LIMITS)
    scheduler.add(make_request(MODELS[0]))
    first = scheduler.schedule().group
    scheduler.add(make_request(MODELS[1]))
    scheduler.add(make_request(MODELS[2]))
    turns = [scheduler.schedule() for _ in range(9)]
    second, third = turns[1].group, turns[4].group
    everyone = [Decode(first), Decode(second), Decode(third)]
    assert turns == [
        Decode(first),
        Prefill(second),
        *everyone[:2],
        Prefill(third),
        *everyone,
        everyone[0],
    ]


def test_requests_of_one_model_that_wait_together_run_in_one_group():
    scheduler = Scheduler(LIMITS)
    for model in (MODELS[1], MODELS[0], MODELS[1]):
        scheduler.add(make_request(model))
    group = scheduler.schedule().group
    assert [each.request.model for each in group.sequences] == [MODELS[1], MODELS[1]]


def test_a_request_with_more_choices_than_the_batch_holds_runs_in_parts():
    scheduler = Scheduler(LIMITS)
    scheduler.add(make_request(n=8))
    group = scheduler.schedule().group
    assert [each.index for each in group.sequences] == list(range(LIMITS.max_batch))
    assert scheduler.schedule() == Decode(group)
    scheduler.retire(group, group.sequences[:2])
    rest = scheduler.schedule()
    assert isinstance(rest, Prefill)
    assert [each.index for each in rest.group.sequences] == [6, 7]


@given(st.integers(1, 20))
def test_the_queue_is_full_at_its_limit_whatever_the_number_of_choices(n: int):
    scheduler = Scheduler(LIMITS)
    while scheduler.can_add():
        scheduler.add(make_request(n=n))
    assert LIMITS.max_waiting <= len(scheduler.waiting) < LIMITS.max_waiting + n


def test_a_limit_below_one_is_refused():
    with pytest.raises(ValueError, match="max_groups is 0"):
        Limits(max_batch=1, max_groups=0, max_waiting=1, max_bases=1, max_adapters=1)
