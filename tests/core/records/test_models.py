"""What a job leaves behind: its newest checkpoints and its model."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from core.errors import Conflict, NotFound
from core.records.claims import Claim
from core.records.database import Database
from core.records.ids import tuned_model_id
from core.records.jobs import cancel_job
from core.records.models import (
    StoredBundle,
    add_checkpoint,
    add_final_model,
    delete_model,
    list_checkpoints,
    list_models,
    set_serving,
)
from core.records.owned import get_owned
from core.records.projects import DEFAULT_PROJECT
from core.records.tables import Job, TunedModel
from core.spec.base_model import BaseModelSpec
from core.spec.bundle import BundleRef
from core.spec.job import JobSpec
from core.spec.parity import Parity
from core.spec.serving import ServingSpec
from core.spec.workspace import KEPT_CHECKPOINTS

StartJob = Callable[..., Claim]


@pytest.fixture
def job(start_job: StartJob, read_job: Callable[[str], Job]) -> Job:
    return read_job(start_job().job_id)


@pytest.fixture
def model_id(job: Job) -> str:
    return tuned_model_id("tiny", DEFAULT_PROJECT, "pets", job.id)


def save(
    database: Database, job: Job, model_id: str, step: int, key: str, best: int | None = None
) -> list[str]:
    bundle = StoredBundle(key, "0" * 64)
    with database.writing() as session:
        return list(
            add_checkpoint(session, job, model_id, step, {"loss": 1.0}, bundle, best_step=best)
        )


def steps(database: Database, job: Job) -> list[int]:
    with database.reading() as session:
        rows = list_checkpoints(session, job.id, after=None, limit=10).rows
        return [row.step for row in rows]


def test_newest_checkpoints_are_kept_and_the_others_named_for_deletion(
    database: Database, job: Job, model_id: str
) -> None:
    dropped = [save(database, job, model_id, step, f"key-{step}") for step in (10, 20, 30, 40, 50)]
    assert dropped == [[], [], [], ["key-10"], ["key-20"]]
    assert steps(database, job) == [50, 40, 30] and KEPT_CHECKPOINTS == 3
    with database.reading() as session:
        names = {model.id for model in list_models(session, DEFAULT_PROJECT)}
    assert names == {f"{model_id}:ckpt-step-{step}" for step in (30, 40, 50)}


def test_checkpoint_of_the_same_step_replaces_the_older_one(
    database: Database, job: Job, model_id: str
) -> None:
    for step in (10, 20, 30):
        save(database, job, model_id, step, f"key-{step}")
    assert save(database, job, model_id, 20, "key-20-again") == ["key-20"]
    assert save(database, job, model_id, 20, "key-20-again") == []
    assert steps(database, job) == [30, 20, 10]
    with database.reading() as session:
        model = get_owned(session, TunedModel, DEFAULT_PROJECT, f"{model_id}:ckpt-step-20")
    assert model.bundle_key == "key-20-again"


def test_best_checkpoint_stays_however_old_it_is(
    database: Database, job: Job, model_id: str
) -> None:
    dropped = [save(database, job, model_id, n, f"key-{n}", best=10) for n in (10, 20, 30, 40, 50)]
    assert dropped == [[], [], [], [], ["key-20"]]
    assert steps(database, job) == [50, 40, 30, 10]
    assert save(database, job, model_id, 60, "key-60", best=60) == ["key-30", "key-10"]


def test_checkpoints_come_in_pages(database: Database, job: Job, model_id: str) -> None:
    for step in (1, 2, 3):
        save(database, job, model_id, step, f"key-{step}")
    with database.reading() as session:
        first = list_checkpoints(session, job.id, after=None, limit=2)
        rest = list_checkpoints(session, job.id, after=first.rows[-1].id, limit=2)
        assert ([c.step for c in first.rows], first.has_more) == ([3, 2], True)
        assert ([c.step for c in rest.rows], rest.has_more) == ([1], False)
        with pytest.raises(NotFound):
            list_checkpoints(session, "ftjob-other", after=first.rows[-1].id, limit=2)


def test_deleted_model_takes_its_checkpoint_along(
    database: Database, job: Job, model_id: str
) -> None:
    save(database, job, model_id, 10, "key-10")
    with database.writing() as session:
        add_final_model(session, job, model_id, StoredBundle("final", "0" * 64))
    with database.writing() as session:
        deleted, _ = delete_model(session, DEFAULT_PROJECT, f"{model_id}:ckpt-step-10")
        assert (deleted.bundle_key, deleted.checkpoint_step) == ("key-10", 10)
    assert steps(database, job) == []
    with database.writing() as session:
        assert delete_model(session, DEFAULT_PROJECT, model_id)[1] == ["final"]
    with pytest.raises(NotFound), database.writing() as session:
        delete_model(session, DEFAULT_PROJECT, model_id)
    with database.reading() as session:
        assert list_models(session, DEFAULT_PROJECT) == []


def test_form_of_a_model_is_written_and_taken_back(
    database: Database, job: Job, model_id: str
) -> None:
    with database.writing() as session:
        add_final_model(session, job, model_id, StoredBundle("final", "0" * 64))
    merged = ServingSpec(form="merged", quantization="nf4")
    for serving, stored in ((merged, merged.model_dump()), (ServingSpec(), None)):
        with database.writing() as session:
            set_serving(session, DEFAULT_PROJECT, model_id, serving)
        with database.reading() as session:
            assert get_owned(session, TunedModel, DEFAULT_PROJECT, model_id).serving == stored
    with pytest.raises(NotFound), database.writing() as session:
        set_serving(session, DEFAULT_PROJECT, f"{model_id}-none", merged)


@pytest.fixture
def train_from(make_job: Callable[..., str]) -> Callable[[str, str], str]:
    """`train_from(model, key)` makes a job that trains that model, with that bundle, further."""

    def make(model_id: str, key: str) -> str:
        base = BaseModelSpec(id="tiny", source="/models/tiny")
        spec = JobSpec(base=base, parent=BundleRef(key=key, sha256="0" * 64), seed=1)
        return make_job(requested_model=model_id, spec=spec)

    return make


def test_model_stays_while_an_unfinished_job_is_trained_from_it(
    database: Database, job: Job, model_id: str, train_from: Callable[[str, str], str]
) -> None:
    with database.writing() as session:
        add_final_model(session, job, model_id, StoredBundle("final", "0" * 64))
    user = train_from(model_id, "final")
    with pytest.raises(Conflict, match=user), database.writing() as session:
        delete_model(session, DEFAULT_PROJECT, model_id)
    with database.writing() as session:
        cancel_job(session, DEFAULT_PROJECT, user)
        assert delete_model(session, DEFAULT_PROJECT, model_id)[1] == ["final"]


def test_job_cannot_be_made_from_a_model_that_is_gone_or_another_one(
    database: Database, job: Job, model_id: str, train_from: Callable[[str, str], str]
) -> None:
    with pytest.raises(NotFound) as gone:
        train_from(model_id, "final")
    assert gone.value.param == "model"
    with database.writing() as session:
        add_final_model(session, job, model_id, StoredBundle("newer", "0" * 64))
    with pytest.raises(NotFound):
        train_from(model_id, "final")


def test_checkpoint_that_is_trained_from_makes_no_room(
    database: Database, job: Job, model_id: str, train_from: Callable[[str, str], str]
) -> None:
    save(database, job, model_id, 10, "key-10")
    user = train_from(f"{model_id}:ckpt-step-10", "key-10")
    assert [save(database, job, model_id, step, f"key-{step}") for step in (20, 30, 40)] == [[]] * 3
    assert steps(database, job) == [40, 30, 20, 10]
    assert save(database, job, model_id, 10, "key-10-again") == ["key-10-again"]
    with database.writing() as session:
        cancel_job(session, DEFAULT_PROJECT, user)
    assert save(database, job, model_id, 50, "key-50") == ["key-20", "key-10"]


def test_deletion_and_a_job_that_needs_the_model_leave_one_winner(
    database: Database, job: Job, model_id: str, train_from: Callable[[str, str], str]
) -> None:
    for number in range(6):
        with database.writing() as session:
            add_final_model(session, job, f"{model_id}-{number}", StoredBundle("final", "0" * 64))
        barrier = Barrier(2)

        def remove(model: str = f"{model_id}-{number}", barrier: Barrier = barrier) -> bool:
            barrier.wait()
            try:
                with database.writing() as session:
                    delete_model(session, DEFAULT_PROJECT, model)
            except Conflict:
                return False
            return True

        def use(model: str = f"{model_id}-{number}", barrier: Barrier = barrier) -> str | None:
            barrier.wait()
            try:
                return train_from(model, "final")
            except NotFound:
                return None

        with ThreadPoolExecutor(2) as pool:
            removed, user = pool.submit(remove), pool.submit(use)
        assert removed.result() == (user.result() is None)
        if (job_id := user.result()) is not None:
            with database.writing() as session:
                cancel_job(session, DEFAULT_PROJECT, job_id)


def test_verdict_on_a_final_model_is_kept_and_checkpoints_have_none(
    database: Database, job: Job, model_id: str
) -> None:
    save(database, job, model_id, 10, "key-10")
    parity = Parity(status="unchecked", reason="no engine is known to the worker")
    with database.writing() as session:
        add_final_model(session, job, model_id, StoredBundle("key", "0" * 64), parity)
    with database.reading() as session:
        final, checkpoint = sorted(
            list_models(session, DEFAULT_PROJECT), key=lambda model: len(model.id)
        )
    assert Parity.model_validate(final.parity) == parity
    assert checkpoint.parity is None
