"""Who checks a model, how often, and what an owner decides."""

import time
from collections.abc import Callable

import pytest
from sqlalchemy import event

from core.errors import NotFound
from core.records.claims import Claim
from core.records.database import Database
from core.records.ids import checkpoint_model_id, tuned_model_id
from core.records.models import StoredBundle, add_checkpoint, add_final_model
from core.records.owned import get_owned
from core.records.parity import (
    UnderCheck,
    begin_check,
    end_check,
    is_to_be_checked,
    is_withheld,
    publish,
)
from core.records.projects import DEFAULT_PROJECT
from core.records.tables import Job, TunedModel
from core.spec.generation import TextPrompt
from core.spec.parity import Parity, ParityReference, ReplayedRow

SHA = "0" * 64
ROW = ReplayedRow(
    line=1, prompt=TextPrompt(text="a"), prompt_ids=(1,), answer=(2,), logprobs=(None, -1.0)
)
REFERENCE = ParityReference(precision="fp32", rows=(ROW,))
FAILED = Parity(status="failed", differs="numbers", reason="They differ.")


@pytest.fixture
def job(start_job: Callable[..., Claim], read_job: Callable[[str], Job]) -> Job:
    return read_job(start_job().job_id)


@pytest.fixture
def model_id(job: Job) -> str:
    return tuned_model_id("tiny", DEFAULT_PROJECT, "pets", job.id)


@pytest.fixture
def checkpoint(database: Database, job: Job, model_id: str) -> str:
    with database.writing() as session:
        bundle = StoredBundle("key", SHA)
        add_checkpoint(session, job, model_id, 5, {}, bundle, reference=REFERENCE)
    return checkpoint_model_id(model_id, 5)


def begin(database: Database, name: str, seconds: float = 60) -> object:
    with database.writing() as session:
        return begin_check(session, name, SHA, seconds)


def end(database: Database, name: str, parity: Parity | None, sha256: str = SHA) -> None:
    with database.writing() as session:
        end_check(session, name, sha256, parity, retry_seconds=60)


def read(database: Database, name: str) -> TunedModel:
    with database.reading() as session:
        return get_owned(session, TunedModel, DEFAULT_PROJECT, name)


def test_one_checks_and_the_others_know(database: Database, checkpoint: str) -> None:
    assert is_to_be_checked(read(database, checkpoint))
    assert begin(database, checkpoint) == REFERENCE
    assert begin(database, checkpoint) == UnderCheck()
    end(database, checkpoint, Parity(status="passed"))
    assert begin(database, checkpoint) is None
    model = read(database, checkpoint)
    assert not is_to_be_checked(model)
    assert Parity.model_validate(model.parity).status == "passed"


def test_check_that_nobody_ends_is_taken_over(database: Database, checkpoint: str) -> None:
    assert begin(database, checkpoint, seconds=-1) == REFERENCE
    assert begin(database, checkpoint) == REFERENCE


def test_check_whose_time_runs_out_while_another_looks_still_goes_on(
    database: Database, checkpoint: str
) -> None:
    def linger(*_: object) -> None:
        time.sleep(0.3)

    begin(database, checkpoint, seconds=0.2)
    with database.writing() as session:
        event.listen(session.connection(), "after_cursor_execute", linger)
        assert begin_check(session, checkpoint, SHA, 60) in (UnderCheck(), REFERENCE)


def test_check_that_was_left_is_begun_again_at_once(database: Database, checkpoint: str) -> None:
    begin(database, checkpoint)
    end(database, checkpoint, None)
    assert begin(database, checkpoint) == REFERENCE


def test_model_that_could_not_be_checked_is_left_alone_for_a_while(
    database: Database, checkpoint: str
) -> None:
    begin(database, checkpoint)
    end(database, checkpoint, Parity(status="unchecked", reason="no engine"))
    assert begin(database, checkpoint) is None, "and nobody waits"
    assert not is_to_be_checked(read(database, checkpoint))


def test_verdict_on_another_bundle_of_the_same_name_is_dropped(
    database: Database, checkpoint: str
) -> None:
    begin(database, checkpoint)
    end(database, checkpoint, FAILED, sha256="1" * 64)
    assert read(database, checkpoint).parity is None


def test_only_unchecked_final_models_are_checked_later(
    database: Database, job: Job, model_id: str
) -> None:
    with database.writing() as session:
        bundle = StoredBundle("final", SHA)
        add_final_model(session, job, model_id, bundle, Parity(status="passed"), REFERENCE)
    assert not is_to_be_checked(read(database, model_id))
    with database.writing() as session:
        session.delete(get_owned(session, TunedModel, DEFAULT_PROJECT, model_id))
        session.flush()
        unchecked = Parity(status="unchecked", reason="no engine")
        add_final_model(session, job, model_id, bundle, unchecked, REFERENCE)
    assert begin(database, model_id) == REFERENCE


def test_failed_model_is_withheld_until_it_is_published(
    database: Database, checkpoint: str
) -> None:
    begin(database, checkpoint)
    end(database, checkpoint, FAILED)
    assert is_withheld(read(database, checkpoint))
    with database.writing() as session:
        first = publish(session, DEFAULT_PROJECT, checkpoint).published_at
    with database.writing() as session:
        assert publish(session, DEFAULT_PROJECT, checkpoint).published_at == first
    model = read(database, checkpoint)
    assert not is_withheld(model) and Parity.model_validate(model.parity) == FAILED


def test_models_of_another_project_are_not_published(database: Database, checkpoint: str) -> None:
    with pytest.raises(NotFound), database.writing() as session:
        publish(session, "other", checkpoint)
