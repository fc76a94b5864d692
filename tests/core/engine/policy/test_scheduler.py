"""Policy without a device: what any order of arrivals, steps and departures must keep."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from core.engine.policy.blocks import BlockPool
from core.engine.policy.request import BaseKey, ModelKey, Request
from core.engine.policy.scheduler import Scheduler
from core.engine.policy.step import Limits, Step
from core.spec.base_model import BaseModelSpec
from core.spec.generation import SamplingSpec

LIMITS = Limits(max_sequences=4, max_waiting=8, max_step_tokens=8, max_bases=1, max_adapters=2)
BLOCKS, SIZE = 7, 2
LONGEST = BLOCKS * SIZE - 1

MODELS = [
    ModelKey(BaseModelSpec(id=base, source=f"/{base}"), adapter)
    for base in ("one", "two")
    for adapter in (None, "a", "b", "c")
]


def make_scheduler(limits: Limits = LIMITS) -> Scheduler:
    return Scheduler(limits, lambda base: BlockPool(BLOCKS, SIZE))


def make_request(
    model: ModelKey = MODELS[0],
    n: int = 1,
    prompt: tuple[int, ...] = (1,),
    max_tokens: int = 4,
    project: str = "",
    is_background: bool = False,
) -> Request:
    sampling = SamplingSpec(seed=0, n=n)
    return Request("r", model, prompt, sampling, max_tokens, frozenset(), project, is_background)


class SchedulerMachine(RuleBasedStateMachine):
    """Requests arrive, steps run, sequences finish, clients leave, in any order.

    A dictionary plays the cache: each position of each block remembers all that stood before it. A
    sequence whose positions are not all where its blocks say would answer with another's text.
    """

    def __init__(self) -> None:
        super().__init__()
        self.scheduler = make_scheduler()
        self.pending = []
        """Sequences that are neither finished nor withdrawn."""
        self.cache: dict[tuple[BaseKey, int, int], tuple[ModelKey, tuple[int, ...]]] = {}
        self.steps_without: dict[object, int] = {}

    @precondition(lambda self: self.scheduler.can_add() and self.scheduler.can_add(True))
    @rule(
        is_background=st.booleans(),
        model=st.sampled_from(MODELS),
        n=st.integers(1, 3),
        prompt=st.lists(st.integers(0, 1), min_size=1, max_size=LONGEST - 4).map(tuple),
    )
    def add(self, is_background: bool, model: ModelKey, n: int, prompt: tuple[int, ...]) -> None:
        request = make_request(model, n, prompt, is_background=is_background)
        self.pending.extend(self.scheduler.add(request))

    @rule(token=st.integers(0, 1), seconds=st.floats(0, 1))
    def step(self, token: int, seconds: float) -> None:
        before = set(self.scheduler.running_sequences())
        step = self.scheduler.schedule()
        assert (step is None) == (not self.pending), "work is left and nothing runs"
        if step is None:
            return
        self.check(step, before)
        for chunk in step.chunks:
            self.run(step.base, chunk.sequence, chunk.start, chunk.end)
        self.scheduler.advance(step, seconds)
        for chunk in step.chunks:
            if chunk.is_last:
                chunk.sequence.write(token)
                if len(chunk.sequence.tokens) == chunk.sequence.request.max_tokens:
                    self.leave(chunk.sequence)

    def check(self, step: Step, before: set) -> None:
        sequences = [chunk.sequence for chunk in step.chunks]
        assert len(set(sequences)) == len(sequences)
        tokens = sum(chunk.end - chunk.start for chunk in step.chunks)
        assert tokens <= LIMITS.max_step_tokens * 9 / 8
        for sequence in before & set(self.scheduler.running_sequences()):
            writes = len(sequence.all_tokens) - sequence.computed == 1
            is_live = not sequence.is_background
            if sequence.request.model.base_key == step.base and writes and is_live:
                assert sequence in sequences, "a stream was passed over"

    def run(self, base: BaseKey, sequence, start: int, end: int) -> None:
        """Write what the model would write, and look at all that it would look at."""
        model = sequence.request.model
        for position in range(end):
            where = base, sequence.blocks[position // SIZE], position % SIZE
            content = model, tuple(sequence.all_tokens[: position + 1])
            if position >= start:
                self.cache[where] = content
            assert self.cache[where] == content, "a block holds something else"

    def leave(self, sequence) -> None:
        self.scheduler.remove(sequence)
        sequence.is_finished = True
        self.pending.remove(sequence)

    @precondition(lambda self: self.pending)
    @rule(data=st.data())
    def disconnect(self, data: st.DataObject) -> None:
        request = data.draw(st.sampled_from(self.pending)).request
        for sequence in [each for each in self.pending if each.request is request]:
            self.leave(sequence)

    @invariant()
    def nothing_is_lost_or_doubled(self) -> None:
        held = self.scheduler.running_sequences()
        held += [each for lane in self.scheduler.lanes for each in lane.all_waiting()]
        assert sorted(map(id, held)) == sorted(map(id, self.pending))

    @invariant()
    def live_sequences_run_before_others(self) -> None:
        for lane in self.scheduler.lanes:
            kinds = [each.is_background for each in lane.running]
            assert kinds == sorted(kinds)

    @invariant()
    def limits_hold(self) -> None:
        running = self.scheduler.running_sequences()
        assert len(running) <= LIMITS.max_sequences
        assert len({each.request.model.base_key for each in running}) <= LIMITS.max_bases
        assert len({each.request.model.adapter_sha256 for each in running} - {None}) <= 2

    @invariant()
    def blocks_belong_to_who_runs(self) -> None:
        for lane in self.scheduler.lanes:
            used = {block for each in lane.running for block in each.blocks}
            assert lane.pool.free == BLOCKS - len(used)
            assert not any(each.blocks for each in lane.all_waiting())


TestScheduler = SchedulerMachine.TestCase
TestScheduler.settings = settings(max_examples=300, stateful_step_count=60, deadline=None)


def run_all(scheduler: Scheduler, steps: int = 1) -> list[Step]:
    """Take steps; every sequence that can writes the token 7, and leaves after its last."""
    taken = []
    for _ in range(steps):
        step = scheduler.schedule()
        if step is None:
            break
        scheduler.advance(step)
        for chunk in step.chunks:
            if chunk.is_last:
                chunk.sequence.write(7)
                if len(chunk.sequence.tokens) == chunk.sequence.request.max_tokens:
                    chunk.sequence.is_finished = True
                    scheduler.remove(chunk.sequence)
        taken.append(step)
    return taken


def test_a_request_joins_while_another_one_writes() -> None:
    scheduler = make_scheduler()
    [first] = scheduler.add(make_request())
    run_all(scheduler)
    [second] = scheduler.add(make_request(MODELS[1]))
    [step] = run_all(scheduler)
    assert [chunk.sequence for chunk in step.chunks] == [first, second]


def test_a_long_prompt_is_read_in_chunks_beside_a_stream() -> None:
    scheduler = make_scheduler()
    [stream] = scheduler.add(make_request(max_tokens=9))
    run_all(scheduler)
    [reader] = scheduler.add(make_request(prompt=(0,) * 10, max_tokens=1))
    first, second = run_all(scheduler, 2)
    assert [(each.sequence, each.start, each.end) for each in first.chunks] == [
        (stream, 1, 2),
        (reader, 0, 7),
    ]
    assert [(each.sequence, each.start, each.end) for each in second.chunks] == [
        (stream, 2, 3),
        (reader, 7, 10),
    ]


def test_no_step_is_spent_on_the_last_few_tokens_of_a_prompt() -> None:
    scheduler = make_scheduler()
    [reader] = scheduler.add(make_request(prompt=(0,) * 9, max_tokens=1))
    [other] = scheduler.add(make_request(prompt=(1,), max_tokens=1))
    [first, second] = run_all(scheduler, 2)
    assert [(each.sequence, each.end) for each in first.chunks] == [(reader, 9)]
    assert [(each.sequence, each.end) for each in second.chunks] == [(other, 1)]


def test_the_prompt_of_several_choices_is_read_once() -> None:
    scheduler = make_scheduler()
    scheduler.add(make_request(n=3, prompt=(1, 0, 1, 0, 1), max_tokens=1))
    first, second = run_all(scheduler, 2)
    assert [(each.start, each.end) for each in first.chunks] == [(0, 5)]
    assert [(each.start, each.end) for each in second.chunks] == [(4, 5), (4, 5)]


def test_a_known_beginning_is_not_read_again_by_the_same_model_only() -> None:
    scheduler = make_scheduler()
    prompt = (1, 0, 1, 0, 1)
    scheduler.add(make_request(MODELS[1], prompt=prompt, max_tokens=1))
    run_all(scheduler)
    scheduler.add(make_request(MODELS[1], prompt=prompt, max_tokens=1))
    scheduler.add(make_request(MODELS[2], prompt=prompt, max_tokens=1))
    chunks = [chunk for step in run_all(scheduler, 3) for chunk in step.chunks]
    assert [(each.start, each.end) for each in chunks[:1]] == [(4, 5)]
    assert chunks[1].start == 0


def test_who_steps_back_keeps_what_it_has_written() -> None:
    scheduler = make_scheduler()
    long = [scheduler.add(make_request(prompt=(n, 0, 1), max_tokens=9))[0] for n in range(2)]
    run_all(scheduler, 30)
    assert scheduler.preemptions > 0
    assert [sequence.tokens for sequence in long] == [[7] * 9] * 2


def test_a_base_that_waits_for_its_place_gets_it() -> None:
    scheduler = make_scheduler()
    scheduler.add(make_request(MODELS[0], max_tokens=2))
    run_all(scheduler)
    [other] = scheduler.add(make_request(MODELS[4]))
    for _ in range(3):
        scheduler.add(make_request(MODELS[0], max_tokens=2))
    bases = [step.base for step in run_all(scheduler, 2)]
    assert bases == [MODELS[0].base_key, MODELS[4].base_key]
    assert other.tokens


def test_projects_take_turns_however_much_one_of_them_asks() -> None:
    limits = Limits(max_sequences=1, max_waiting=99, max_step_tokens=6, max_bases=1, max_adapters=2)
    scheduler = make_scheduler(limits)
    for _ in range(10):
        scheduler.add(make_request(project="greedy", max_tokens=1))
    scheduler.add(make_request(project="modest", max_tokens=1))
    served = [step.chunks[0].sequence.request.project for step in run_all(scheduler, 3)]
    assert "modest" in served


def test_a_limit_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="max_waiting is 0"):
        Limits(max_sequences=1, max_waiting=0, max_step_tokens=1, max_bases=1, max_adapters=1)
    with pytest.raises(ValueError, match="max_step_tokens must not be less"):
        Limits(max_sequences=9, max_waiting=1, max_step_tokens=8, max_bases=1, max_adapters=1)
