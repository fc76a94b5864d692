from collections import Counter

import pytest

from core.training.plan import StepPlan


def steps(plan):
    return [plan.step(number) for number in range(1, plan.total_steps + 1)]


def test_every_epoch_trains_every_row_once(job):
    plan = StepPlan(job(epochs=3, batch_size=4), rows=10)
    assert plan.total_steps == 9
    for epoch in (1, 2, 3):
        of_epoch = [step for step in steps(plan) if step.epoch == epoch]
        assert [len(step.rows) for step in of_epoch] == [4, 4, 2]
        assert Counter(row for step in of_epoch for row in step.rows) == Counter(range(10))
        assert [step.ends_epoch for step in of_epoch] == [False, False, True]


@pytest.mark.parametrize("max_steps", [1, 3, 4, 20])
def test_steps_in_place_of_epochs_may_end_within_one(job, max_steps):
    plan = StepPlan(job(epochs=1, batch_size=4, max_steps=max_steps), rows=10)
    planned = steps(plan)
    assert len(planned) == max_steps
    assert planned[-1].ends_epoch and planned[-1].is_checkpointed
    assert [step.epoch for step in planned] == [index // 3 + 1 for index in range(max_steps)]


def test_order_does_not_depend_on_where_a_run_goes_on(job):
    spec = job(epochs=3, batch_size=4)
    assert StepPlan(spec, rows=10).step(8) == steps(StepPlan(spec, rows=10))[7]


@pytest.mark.parametrize(
    ("every_steps", "checkpointed"), [(None, [3, 6]), (2, [2, 4, 6]), (4, [4, 6]), (100, [6])]
)
def test_checkpoints_follow_a_number_of_steps_or_an_epoch_and_the_last_step(
    job, every_steps, checkpointed
):
    spec = job(epochs=2, batch_size=4, evaluation={"every_steps": every_steps})
    plan = StepPlan(spec, rows=10)
    assert [step.number for step in steps(plan) if step.is_checkpointed] == checkpointed
