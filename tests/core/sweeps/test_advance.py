"""A sweep moves on from the database alone, whoever dies, and whoever looks at it how often."""

from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.errors import Conflict
from core.jobs.state import FINAL
from core.records import claims, outbox, sweeps
from core.records.database import Database
from core.records.events import events_since
from core.records.jobs import NewJob, cancel_job
from core.records.leases import is_current
from core.records.pauses import pause_job, resume_job
from core.records.projects import DEFAULT_PROJECT
from core.records.trials import results_of
from core.spec.sweep import HalvingSpec
from core.sweeps.advance import advance_sweeps
from tests.core.sweeps.sweeping import Sweeping, make_sweep, status_of

LOSSES = [2.0, 1.0, 4.0, 3.0]
FOUR = HalvingSpec(first_share=0.25, growth=2.0, finalists=1, last_share=None)


def last_message(database: Database, job_id: str) -> str:
    with database.reading() as session:
        return events_since(session, job_id, 0)[-1].message


def run_rung(sweeping: Sweeping) -> None:
    while sweeping.run_one():
        pass


def test_losers_end_with_the_reason_and_the_winner_is_trained_to_its_end(
    database: Database, new_job: NewJob
) -> None:
    sweeping = make_sweep(database, new_job, LOSSES, FOUR)
    for _ in range(3):
        assert sweeping.run_one()
        assert advance_sweeps(database) == []  # one has not reached the rung
    assert sweeping.run_one() and sweeping.claim() is None
    assert advance_sweeps(database) == [sweeping.sweep_id]
    assert advance_sweeps(database) == []

    trials = sweeping.trials
    assert [each.trial.outcome for each in trials] == [None, None, "lost", "lost"]
    assert [each.job.status for each in trials] == ["queued", "queued", "cancelled", "cancelled"]
    assert [each.job.pause_at_share for each in trials[:2]] == [0.5, 0.5]
    assert trials[2].trial.reason == (
        f"Trial 2 of {sweeping.sweep_id} has lost: after 25.0% of the steps, it ranks number 4 of "
        "4 with a held-out loss of 4.0000 at step 20; the best 2 continue."
    )
    assert last_message(database, trials[2].job.id) == trials[2].trial.reason
    assert "ranks number 1 with" in last_message(database, trials[1].job.id)
    with database.reading() as session:
        assert {work.id for work in outbox.due(session)} == {each.job.id for each in trials[:2]}

    run_rung(sweeping)
    assert advance_sweeps(database) == [sweeping.sweep_id]
    assert sweeping.trials[1].job.pause_at_share is None
    assert sweeping.sweep.status == "running"
    run_rung(sweeping)
    assert advance_sweeps(database) == [sweeping.sweep_id]
    sweep, winner = sweeping.sweep, sweeping.trials[1]
    assert (sweep.status, sweep.winner, sweep.error) == ("succeeded", winner.job.id, None)
    assert sweep.finished_at is not None and winner.job.fine_tuned_model is not None
    assert [result.share for result in results_of(winner.trial)] == [0.25, 0.5, 1.0]
    assert [each.trial.outcome for each in sweeping.trials] == ["lost", "won", "lost", "lost"]
    assert sweeping.claim() is None


def test_finalist_that_loses_keeps_its_model(database: Database, new_job: NewJob) -> None:
    halving = HalvingSpec(first_share=0.25, last_share=None)
    sweeping = make_sweep(database, new_job, LOSSES, halving)
    for _ in range(2):
        run_rung(sweeping)
        assert advance_sweeps(database) == [sweeping.sweep_id]
    second = sweeping.trials[0]
    assert sweeping.sweep.winner == sweeping.job_id(1)
    assert (second.trial.outcome, second.job.status) == ("lost", "succeeded")
    assert second.job.fine_tuned_model is not None
    assert "at the end, it ranks number 2 of 2 with" in (second.trial.reason or "")


def test_full_grid_keeps_every_model_and_names_the_best(
    database: Database, new_job: NewJob
) -> None:
    sweeping = make_sweep(database, new_job, LOSSES, None)
    run_rung(sweeping)
    assert advance_sweeps(database) == [sweeping.sweep_id]
    assert sweeping.sweep.winner == sweeping.job_id(1)
    assert {each.job.status for each in sweeping.trials} == {"succeeded"}
    assert "number 2 of 4" in (sweeping.trials[0].trial.reason or "")


def test_failed_and_cancelled_trials_lose(database: Database, new_job: NewJob) -> None:
    sweeping = make_sweep(database, new_job, LOSSES, FOUR)
    with database.writing() as session:
        cancel_job(session, DEFAULT_PROJECT, sweeping.job_id(0))
    sweeping.run_one(fails=True)
    run_rung(sweeping)
    assert advance_sweeps(database) == [sweeping.sweep_id]
    outcomes = [(each.trial.outcome, each.trial.reason) for each in sweeping.trials]
    assert outcomes == [
        ("cancelled", "The job was cancelled."),
        ("failed", "The loss is infinite."),
        (None, None),
        (None, None),
    ]


def test_sweep_fails_with_the_reasons_if_all_trials_fail(
    database: Database, new_job: NewJob
) -> None:
    sweeping = make_sweep(database, new_job, [1.0] * 7, FOUR)
    while sweeping.run_one(fails=True):
        pass
    assert advance_sweeps(database) == [sweeping.sweep_id]
    sweep = sweeping.sweep
    assert (sweep.status, sweep.winner) == ("failed", None)
    assert sweep.error is not None and sweep.error["code"] == "all_trials_failed"
    assert sweep.error["message"].startswith("No trial is left. trial 0: The loss is infinite.; ")
    assert sweep.error["message"].endswith("; and 2 more")


def test_trial_at_its_rung_is_not_resumed_by_hand(database: Database, new_job: NewJob) -> None:
    sweeping = make_sweep(database, new_job, LOSSES, FOUR)
    sweeping.run_one()
    refused = pytest.raises(Conflict, match=r"is trial 0 of sweep-\w+ and waits")
    with refused, database.writing() as session:
        resume_job(session, DEFAULT_PROJECT, sweeping.job_id(0))


def test_trial_that_its_owner_has_paused_holds_the_rung(
    database: Database, new_job: NewJob
) -> None:
    sweeping = make_sweep(database, new_job, LOSSES, FOUR)
    with database.writing() as session:
        pause_job(session, DEFAULT_PROJECT, sweeping.job_id(0))
    run_rung(sweeping)
    assert advance_sweeps(database) == []
    with database.writing() as session:
        resume_job(session, DEFAULT_PROJECT, sweeping.job_id(0))
    run_rung(sweeping)
    assert advance_sweeps(database) == [sweeping.sweep_id]


def test_pause_that_was_requested_before_a_rung_takes_effect_after_it(
    database: Database, new_job: NewJob
) -> None:
    sweeping = make_sweep(database, new_job, LOSSES, FOUR)
    claims = [sweeping.claim() for _ in LOSSES]
    with database.writing() as session:
        pause_job(session, DEFAULT_PROJECT, sweeping.job_id(1))
    for claim in claims:
        assert claim is not None
        sweeping.begin(claim)
        sweeping.finish(claim)
    advance_sweeps(database)
    assert [each.job.status for each in sweeping.trials[:2]] == ["queued", "paused"]
    assert sweeping.trials[1].job.pause_at_share == 0.5
    assert last_message(database, sweeping.job_id(1)).endswith("It stays paused, as was requested.")
    run_rung(sweeping)
    assert advance_sweeps(database) == []
    with database.writing() as session:
        resume_job(session, DEFAULT_PROJECT, sweeping.job_id(1))
    run_rung(sweeping)
    assert advance_sweeps(database) == [sweeping.sweep_id]


def test_resumed_sweep_withdraws_the_pauses_of_trials_at_their_rung(
    database: Database, new_job: NewJob
) -> None:
    sweeping = make_sweep(database, new_job, LOSSES, FOUR)
    claim = sweeping.claim()
    with database.writing() as session:
        sweeps.pause_sweep(session, DEFAULT_PROJECT, sweeping.sweep_id)
    assert claim is not None
    sweeping.begin(claim)
    sweeping.finish(claim)
    with database.writing() as session:
        sweeps.resume_sweep(session, DEFAULT_PROJECT, sweeping.sweep_id)
    run_rung(sweeping)
    advance_sweeps(database)
    kept = [each.job.status for each in sweeping.trials if each.trial.outcome is None]
    assert kept == ["queued", "queued"]


def test_cancelled_sweep_cancels_its_jobs_and_is_final(database: Database, new_job: NewJob) -> None:
    sweeping = make_sweep(database, new_job, LOSSES, FOUR)
    sweeping.run_one(fails=True)
    sweeping.run_one()
    held = sweeping.claim()
    with database.writing() as session:
        sweeps.cancel_sweep(session, DEFAULT_PROJECT, sweeping.sweep_id)
    statuses = [each.job.status for each in sweeping.trials]
    assert statuses == ["failed", "cancelled", "cancelled", "cancelled"]
    assert held is not None and advance_sweeps(database) == []
    assert sweeping.sweep.status == "cancelled"
    for move in (sweeps.cancel_sweep, sweeps.pause_sweep, sweeps.resume_sweep):
        with (
            pytest.raises(Conflict, match=r"has ended \(cancelled\)"),
            database.writing() as session,
        ):
            move(session, DEFAULT_PROJECT, sweeping.sweep_id)


def test_paused_sweep_stands_still_and_resumes_only_what_has_work(
    database: Database, new_job: NewJob
) -> None:
    sweeping = make_sweep(database, new_job, LOSSES, FOUR)
    sweeping.run_one()
    with database.writing() as session:
        sweeps.pause_sweep(session, DEFAULT_PROJECT, sweeping.sweep_id)
    assert sweeping.claim() is None
    assert {each.job.status for each in sweeping.trials} == {"paused"}
    with pytest.raises(Conflict, match="already paused"), database.writing() as session:
        sweeps.pause_sweep(session, DEFAULT_PROJECT, sweeping.sweep_id)
    with database.writing() as session:
        sweeps.resume_sweep(session, DEFAULT_PROJECT, sweeping.sweep_id)
    assert [each.job.status for each in sweeping.trials] == ["paused", *["queued"] * 3]
    with pytest.raises(Conflict, match="is running and not paused"), database.writing() as session:
        sweeps.resume_sweep(session, DEFAULT_PROJECT, sweeping.sweep_id)
    run_rung(sweeping)
    assert advance_sweeps(database) == [sweeping.sweep_id]


MOVES = ("claim", "begin", "finish", "fail", "die", "advance", "cancel")


@given(
    losses=st.lists(st.sampled_from([1.0, 2.0, 3.0]), min_size=2, max_size=5),
    moves=st.lists(st.tuples(st.sampled_from(MOVES), st.integers(0, 7)), max_size=60),
)
@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_order_of_transactions_ends_with_one_winner_and_each_rung_trained_once(
    database: Database, new_job: NewJob, losses: list[float], moves: list[tuple[str, int]]
) -> None:
    """Workers take their steps in any order, die between any two, and others look at any time."""
    sweeping = make_sweep(database, new_job, losses, FOUR)
    held: list[tuple[claims.Claim, bool]] = []
    for move, index in [*moves, ("die", 0), ("rest", 0)]:
        _move(sweeping, held, move, index)
    sweep = sweeping.sweep
    assert sweep.finished_at is not None
    won = [each for each in sweeping.trials if each.trial.outcome == "won"]
    assert [each.job.id for each in won] == ([] if sweep.winner is None else [sweep.winner])
    assert (sweep.status == "succeeded") == bool(won)
    for each in sweeping.trials:
        assert each.trial.outcome is not None and each.job.status in FINAL
        shares = Counter(result.share for result in results_of(each.trial))
        assert set(shares.values()) <= {1}
        assert list(shares) == sorted(shares)
    if not any(each.trial.outcome in ("failed", "cancelled") for each in sweeping.trials):
        best = min(range(len(losses)), key=lambda number: (losses[number], number))
        assert [each.trial.number for each in won] == [best]
        assert status_of(database, won[0].job.id) == "succeeded"


def _move(sweeping: Sweeping, held: list[tuple[claims.Claim, bool]], move: str, index: int) -> None:
    match move:
        case "claim":
            if (claim := sweeping.claim()) is not None:
                held.append((claim, False))
        case "begin" if held:
            claim, has_begun = held.pop(index % len(held))
            if not has_begun and _is_ours(sweeping, claim):
                sweeping.begin(claim)
            held.append((claim, True))
        case "finish" | "fail" if held:
            claim, has_begun = held.pop(index % len(held))
            if _is_ours(sweeping, claim):
                if not has_begun:
                    sweeping.begin(claim)
                (sweeping.finish if move == "finish" else sweeping.fail)(claim)
        case "die":
            with sweeping.database.writing() as session:
                claims.rescue_expired(session, worker_id="worker-1")
            held.clear()
        case "advance":
            advance_sweeps(sweeping.database)
        case "cancel":
            job_id = sweeping.job_id(index % len(sweeping.losses))
            if status_of(sweeping.database, job_id) not in FINAL:
                with sweeping.database.writing() as session:
                    cancel_job(session, DEFAULT_PROJECT, job_id)
        case "rest":
            while sweeping.run_one() or advance_sweeps(sweeping.database):
                pass


def _is_ours(sweeping: Sweeping, claim: claims.Claim) -> bool:
    with sweeping.database.reading() as session:
        return is_current(session, claim)
