"""Background sequences fill the gaps of live ones, give way at once, and do not starve."""

from core.engine.policy.background import LONGEST_CREDIT_SECONDS, SHARE
from core.engine.policy.blocks import BlockPool
from core.engine.policy.scheduler import Scheduler
from core.engine.policy.step import Limits, Step
from tests.core.engine.policy.test_scheduler import MODELS, make_request, make_scheduler

LIVE_SECONDS, FULL_SECONDS = 0.010, 0.040


def background(scheduler: Scheduler, count: int = 1, **request):
    """Add background requests; return their sequences."""
    added = [scheduler.add(make_request(is_background=True, **request)) for _ in range(count)]
    return [sequence for [sequence] in added]


def take(scheduler: Scheduler, steps: int = 1) -> list[Step]:
    """Take steps, longer ones with background work; sequences write, and leave at their end."""
    taken = []
    for _ in range(steps):
        step = scheduler.schedule()
        if step is None:
            break
        kinds = {chunk.sequence.is_background for chunk in step.chunks}
        scheduler.advance(step, FULL_SECONDS if True in kinds else LIVE_SECONDS)
        for chunk in step.chunks:
            sequence = chunk.sequence
            if chunk.is_last:
                sequence.write(7)
                if len(sequence.tokens) == sequence.request.max_tokens:
                    sequence.is_finished = True
                    scheduler.remove(sequence)
        taken.append(step)
    return taken


def served(step: Step) -> list[bool]:
    return [chunk.sequence.is_background for chunk in step.chunks]


def test_background_fills_an_engine_without_live_requests() -> None:
    scheduler = make_scheduler()
    background(scheduler, 4, max_tokens=2)
    assert [len(step.chunks) for step in take(scheduler, 3)] == [4, 4]


def test_live_request_takes_the_row_of_the_last_background_sequence() -> None:
    scheduler = make_scheduler()
    waiting = background(scheduler, 4, max_tokens=3)
    take(scheduler)
    [live] = scheduler.add(make_request(max_tokens=1))
    [step] = take(scheduler)
    assert step.chunks[0].sequence is live
    assert scheduler.preemptions == 1 and scheduler.waiting_of(True) == 1
    take(scheduler, 9)
    assert [len(sequence.tokens) for sequence in waiting] == [3] * 4, "its tokens were kept"


def test_live_request_takes_cache_blocks() -> None:
    scheduler = make_scheduler()
    background(scheduler, 2, prompt=(1, 2, 3, 4), max_tokens=3)
    take(scheduler)
    [live] = scheduler.add(make_request(prompt=(5,) * 10, max_tokens=1))
    [first, second] = take(scheduler, 2)
    assert first.chunks[0].sequence is second.chunks[0].sequence is live
    assert scheduler.preemptions > 0


def test_live_request_takes_the_slot_of_an_adapter() -> None:
    scheduler = make_scheduler()
    for model in MODELS[1:3]:
        background(scheduler, model=model)
    take(scheduler)
    [live] = scheduler.add(make_request(MODELS[3], max_tokens=1))
    assert take(scheduler)[0].chunks[0].sequence is live


def test_live_request_takes_the_memory_of_another_base() -> None:
    scheduler = make_scheduler()
    background(scheduler, 3, max_tokens=9)
    take(scheduler)
    [live] = scheduler.add(make_request(MODELS[4], max_tokens=2))
    steps = take(scheduler, 2)
    assert [step.chunks[0].sequence for step in steps] == [live, live]
    assert not scheduler.lanes[0].running or scheduler.lanes[0].base == MODELS[4].base_key


def test_nothing_of_the_background_is_admitted_while_a_live_request_waits() -> None:
    scheduler = make_scheduler()
    for _ in range(5):
        scheduler.add(make_request(max_tokens=3))
    background(scheduler)
    for step in take(scheduler, 3):
        assert served(step) == [False] * 4


def test_background_does_not_join_the_step_of_a_live_prompt() -> None:
    scheduler = make_scheduler()
    background(scheduler, 2, max_tokens=9)
    take(scheduler)
    scheduler.add(make_request(prompt=(1, 2, 3), max_tokens=2))
    assert served(take(scheduler)[0]) == [False]


def test_background_delays_a_live_stream_by_its_share_and_does_not_starve() -> None:
    """A step with background work takes four times as long here."""
    limits = Limits(max_sequences=4, max_waiting=8, max_step_tokens=8, max_bases=1, max_adapters=2)
    scheduler = Scheduler(limits, lambda base: BlockPool(1000, 2))
    batch = background(scheduler, 2, max_tokens=900)
    take(scheduler)
    scheduler.add(make_request(max_tokens=900))
    steps = [served(step) for step in take(scheduler, 800)]
    joined = sum(True in kinds for kinds in steps)
    assert all(False in kinds for kinds in steps), "every step serves the stream"
    delay_seconds = joined * (FULL_SECONDS - LIVE_SECONDS)
    allowed_seconds = SHARE * LIVE_SECONDS * len(steps) + LONGEST_CREDIT_SECONDS + FULL_SECONDS
    assert 0.8 * SHARE * LIVE_SECONDS * len(steps) < delay_seconds < allowed_seconds
    assert len(batch[0].tokens) >= joined


def test_background_that_costs_nothing_joins_almost_every_step() -> None:
    """As on a GPU, where a step of one sequence takes as long as one of many."""
    limits = Limits(max_sequences=4, max_waiting=8, max_step_tokens=8, max_bases=1, max_adapters=2)
    scheduler = Scheduler(limits, lambda base: BlockPool(1000, 2))
    background(scheduler, 2, max_tokens=900)
    scheduler.add(make_request(max_tokens=900))
    joined = 0
    for _ in range(500):
        step = scheduler.schedule()
        assert step is not None
        scheduler.advance(step, LIVE_SECONDS)
        joined += True in served(step)
        for chunk in step.chunks:
            chunk.sequence.write(7)
    assert joined > 400


def test_other_base_of_the_background_waits_for_the_share_of_time() -> None:
    limits = Limits(max_sequences=4, max_waiting=8, max_step_tokens=8, max_bases=2, max_adapters=2)
    scheduler = Scheduler(limits, lambda base: BlockPool(1000, 2))
    background(scheduler, 2, model=MODELS[4], max_tokens=900)
    take(scheduler)
    scheduler.add(make_request(max_tokens=900))
    steps = [served(step) for step in take(scheduler, 400)]
    others = sum(False not in kinds for kinds in steps)
    assert 0 < others * FULL_SECONDS <= SHARE * LIVE_SECONDS * 400 + FULL_SECONDS


def test_queues_have_room_of_their_own() -> None:
    scheduler = make_scheduler()
    while scheduler.can_add(True):
        background(scheduler)
    assert scheduler.can_add() and not scheduler.can_add(True)
