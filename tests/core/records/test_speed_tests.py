"""The newest speed test of a model, of what its name stands for now, within one project."""

from core.records.database import Database
from core.records.projects import ensure_project
from core.records.speed_tests import find_speed_test, forget_speed_tests, store_speed_test
from core.records.tables import SpeedTest
from core.spec.run import BaseModelSpec
from core.spec.serving import ServingSpec
from core.spec.speed import FirstTokenSeconds, SpeedLevel, SpeedResult, SpeedTarget

TARGET = SpeedTarget(
    base=BaseModelSpec(id="tiny", source="/models/tiny", quantization="nf4"),
    adapter=None,
    serving=ServingSpec(),
)


def result(tokens_per_second: float = 10.0) -> SpeedResult:
    level = SpeedLevel(
        requests=1,
        first_token_seconds=FirstTokenSeconds(median=0.1, max=0.2),
        tokens_per_second=tokens_per_second,
    )
    return SpeedResult(
        hardware="cpu", prompt_tokens=64, completion_tokens=32, levels=(level,), is_complete=True
    )


def store(database: Database, project: str, model: str, speed: float = 10.0) -> None:
    with database.writing() as session:
        ensure_project(session, project)
        store_speed_test(session, project, model, TARGET, result(speed))


def speed(
    database: Database, project: str, model: str, target: SpeedTarget = TARGET
) -> float | None:
    with database.reading() as session:
        test = find_speed_test(session, project, model, target)
    if test is None:
        return None
    return SpeedResult.model_validate(test.result).levels[0].tokens_per_second


def test_the_newest_one_takes_the_place_of_the_others(database: Database) -> None:
    store(database, "alpha", "tiny", 10.0)
    store(database, "alpha", "tiny", 20.0)
    assert speed(database, "alpha", "tiny") == 20.0


def test_it_holds_only_for_what_was_measured(database: Database) -> None:
    store(database, "alpha", "tiny")
    merged = TARGET.model_copy(update={"serving": ServingSpec(form="merged")})
    assert speed(database, "alpha", "tiny", merged) is None


def test_one_that_was_stored_with_the_first_spelling_still_holds(database: Database) -> None:
    store(database, "alpha", "tiny")
    with database.writing() as session:
        [test] = session.query(SpeedTest).all()
        base = {name: value for name, value in test.target["base"].items() if value != "nf4"}
        test.target = test.target | {"base": base | {"quantisation": "nf4"}}
    assert speed(database, "alpha", "tiny") == 10.0


def test_models_and_projects_are_kept_apart(database: Database) -> None:
    store(database, "alpha", "tiny", 10.0)
    store(database, "beta", "tiny", 20.0)
    store(database, "alpha", "large", 30.0)
    with database.writing() as session:
        forget_speed_tests(session, "alpha", "tiny")
    found = [
        speed(database, *of) for of in (("alpha", "tiny"), ("beta", "tiny"), ("alpha", "large"))
    ]
    assert found == [None, 20.0, 30.0]
