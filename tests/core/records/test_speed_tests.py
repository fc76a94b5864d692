"""The newest speed test of a model, of what its name stands for now, within one project."""

from sqlalchemy import func, select

from core.records import tasks
from core.records.database import Database
from core.records.projects import ensure_project
from core.records.speed_tests import (
    SPEED_TEST,
    find_speed_test,
    forget_speed_tests,
    get_speed_test,
    request_speed_test,
)
from core.records.tables import Task
from core.spec.base_model import BaseModelSpec
from core.spec.serving import ServingSpec
from core.spec.speed import FirstTokenSeconds, SpeedLevel, SpeedResult, SpeedTarget
from core.tasks.failure import TaskFailure

TARGET = SpeedTarget(
    base=BaseModelSpec(id="tiny", source="/models/tiny", quantization="nf4"),
    adapter=None,
    serving=ServingSpec(),
)
MERGED = TARGET.model_copy(update={"serving": ServingSpec(form="merged")})


def result(tokens_per_second: float) -> SpeedResult:
    level = SpeedLevel(
        requests=1,
        first_token_seconds=FirstTokenSeconds(median=0.1, max=0.2),
        tokens_per_second=tokens_per_second,
    )
    return SpeedResult(
        hardware="cpu", prompt_tokens=64, completion_tokens=32, levels=(level,), is_complete=True
    )


def ask(database: Database, project: str, model: str, target: SpeedTarget = TARGET) -> str:
    with database.writing() as session:
        ensure_project(session, project)
        return request_speed_test(session, project, model, target).id


def measure(database: Database, project: str, model: str, speed: float | None = 10.0) -> None:
    """Have the test run; None: it fails."""
    ask(database, project, model)
    with database.writing() as session:
        claim = tasks.claim_next(session, "worker-1", [SPEED_TEST])
        assert claim is not None
        if speed is None:
            tasks.fail(session, claim, TaskFailure(code="busy", message="The engine is full."))
        else:
            tasks.succeed(session, claim, result(speed))


def speed(
    database: Database, project: str, model: str, target: SpeedTarget = TARGET
) -> float | None:
    with database.reading() as session:
        test = find_speed_test(session, project, model, target)
    if test is None:
        return None
    return SpeedResult.model_validate(test.result).levels[0].tokens_per_second


def count(database: Database) -> int:
    with database.reading() as session:
        return session.scalar(select(func.count()).select_from(Task)) or 0


def test_the_newest_result_counts_and_few_are_kept(database: Database) -> None:
    for tokens_per_second in (10.0, 20.0, None, 30.0, None):
        measure(database, "alpha", "tiny", tokens_per_second)
    assert speed(database, "alpha", "tiny") == 30.0
    assert count(database) == 2  # the newest result, and what has come after it


def test_result_stays_while_the_next_test_runs(database: Database) -> None:
    measure(database, "alpha", "tiny", 10.0)
    ask(database, "alpha", "tiny")
    assert speed(database, "alpha", "tiny") == 10.0


def test_it_holds_only_for_what_was_measured(database: Database) -> None:
    measure(database, "alpha", "tiny")
    assert speed(database, "alpha", "tiny", MERGED) is None


def test_who_asks_meanwhile_shares_the_test_of_the_same_target(database: Database) -> None:
    first = ask(database, "alpha", "tiny")
    assert ask(database, "alpha", "tiny") == first
    assert ask(database, "alpha", "tiny", MERGED) != first
    assert ask(database, "beta", "tiny") != first
    with database.writing() as session:
        assert tasks.claim_next(session, "worker-1", [SPEED_TEST]) is not None
    assert ask(database, "alpha", "tiny") == first


def test_models_and_projects_are_kept_apart(database: Database) -> None:
    measure(database, "alpha", "tiny", 10.0)
    measure(database, "beta", "tiny", 20.0)
    measure(database, "alpha", "large", 30.0)
    under_way = ask(database, "alpha", "tiny")
    with database.writing() as session:
        forget_speed_tests(session, "alpha", "tiny")
    found = [
        speed(database, *of) for of in (("alpha", "tiny"), ("beta", "tiny"), ("alpha", "large"))
    ]
    assert found == [None, 20.0, 30.0]
    with database.reading() as session:
        assert get_speed_test(session, "alpha", under_way) is None


def test_one_that_was_stored_with_the_first_spelling_still_holds(database: Database) -> None:
    measure(database, "alpha", "tiny")
    under_way = ask(database, "alpha", "tiny")
    with database.writing() as session:
        for test in session.query(Task).all():
            base = {name: value for name, value in test.payload["base"].items() if value != "nf4"}
            test.payload = test.payload | {"base": base | {"quantisation": "nf4"}}
    assert speed(database, "alpha", "tiny") == 10.0
    assert ask(database, "alpha", "tiny") == under_way
