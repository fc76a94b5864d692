"""The verdict on a job's model over HTTP, and models that do not meet their requirements."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from core.records.owned import get_owned
from core.records.tables import Job
from core.spec.evaluation import Requirement
from core.spec.verdict import (
    Answer,
    HeldOut,
    JudgedSample,
    LossFigures,
    Metric,
    Overfitting,
    RequirementOutcome,
    Scores,
    Verdict,
)
from tests.api import as_worker
from tests.api.live import Api
from tests.api.scripted_engine import ScriptedEngine

JOBS = "/v1/fine_tuning/jobs"
HELLO = [{"role": "user", "content": "Hello"}]
CHECK = {
    "type": "string_check",
    "name": "same",
    "input": "{{sample.output_text}}",
    "reference": "{{item.reference}}",
    "operation": "eq",
}
VERDICT = Verdict(
    status="better",
    sentence="Better than tunesmith/tiny on held-out rows.",
    compared_with="tunesmith/tiny",
    held_out=HeldOut(
        rows=20,
        source="split",
        base=LossFigures(loss=2.0, perplexity=7.4, accuracy=0.2),
        tuned=LossFigures(loss=1.0, perplexity=2.7, accuracy=0.6),
    ),
    metrics=(
        Metric(
            name="exact_match", base=0.1, tuned=0.8, difference=0.7, interval=(0.5, 0.9), rows=20
        ),
    ),
    overfitting=Overfitting(status="none", reason="No overfitting.", best_step=5, last_step=5),
    samples=(
        JudgedSample(
            line=3,
            messages=tuple(HELLO),
            reference="Hi.",
            base=Answer(text="What?"),
            tuned=Answer(text="Hi."),
            scores={"exact_match": Scores(base=0, tuned=1)},
        ),
    ),
)
UNMET = VERDICT.model_copy(
    update={
        "requirements": (
            RequirementOutcome(
                requirement=Requirement(metric="loss", at_most=0.5),
                met=False,
                message="loss is 1; at most 0.5 is allowed.",
            ),
        )
    }
)


def test_evaluation_is_the_verdict_on_the_final_model(
    api: Api, client: httpx.Client, create_job: Callable[..., str]
) -> None:
    job_id = create_job()
    before = client.get(f"{JOBS}/{job_id}/evaluation")
    assert (before.status_code, before.json()["error"]["code"]) == (404, "evaluation_not_ready")
    model = as_worker.succeed(api, as_worker.start(api), verdict=VERDICT)
    shown = client.get(f"{JOBS}/{job_id}/evaluation").json()
    assert shown["object"] == "fine_tuning.job.evaluation"
    assert (shown["fine_tuning_job_id"], shown["model"]) == (job_id, model)
    assert {name: shown[name] for name in Verdict.model_fields} == VERDICT.model_dump(mode="json")


def test_evaluation_goes_with_its_model_and_others_have_none(
    api: Api, client: httpx.Client, create_job: Callable[..., str]
) -> None:
    job_id = create_job()
    model = as_worker.succeed(api, as_worker.start(api), verdict=VERDICT)
    assert client.delete(f"/v1/models/{model}").status_code == 200
    failed = create_job()
    as_worker.fail(api, as_worker.start(api))
    for each in (job_id, failed):
        answer = client.get(f"{JOBS}/{each}/evaluation")
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "evaluation_not_found")


@pytest.fixture
def withheld(api: Api, create_job: Callable[..., str]) -> str:
    """The id of a model that does not meet its requirements."""
    create_job()
    return as_worker.succeed(api, as_worker.start(api), verdict=UNMET)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"messages": HELLO}),
        ("/v1/completions", {"prompt": "Hello"}),
        ("/v1/responses", {"input": "Hello"}),
        ("/v1/classifications", {"input": "Hello"}),
    ],
)
def test_model_that_does_not_meet_its_requirements_does_not_answer(
    client: httpx.Client, engine: ScriptedEngine, withheld: str, path: str, body: dict[str, Any]
) -> None:
    answer = client.post(path, json={"model": withheld} | body)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (409, "requirement_failed")
    assert "loss is 1; at most 0.5 is allowed." in error["message"]
    assert f"POST /v1/models/{withheld}/publish" in error["message"]
    assert engine.requests == [] and engine.classified == []


def test_withheld_model_is_kept_and_marked_and_published_by_its_owner(
    client: httpx.Client, withheld: str
) -> None:
    shown = client.get(f"/v1/models/{withheld}").json()
    assert shown["unmet_requirements"] == "loss is 1; at most 0.5 is allowed."
    (job,) = client.get(JOBS).json()["data"]
    assert client.get(f"{JOBS}/{job['id']}/adapter").status_code == 200
    published = client.post(f"/v1/models/{withheld}/publish").json()
    assert published["published_at"] is not None
    assert published["unmet_requirements"] == shown["unmet_requirements"]
    body = {"model": withheld, "messages": HELLO}
    assert client.post("/v1/chat/completions", json=body).status_code == 200
    events = client.get(f"{JOBS}/{job['id']}/events").json()["data"]
    told = [event["message"] for event in events if "published" in event["message"]]
    assert told == [
        f"The owner published {withheld}, which does not meet the requirements of its job."
    ]


def test_requirements_need_held_out_rows(client: httpx.Client, dataset: str) -> None:
    need = {"require": {"metric": "loss", "at_most": 1.2}}
    body = {"model": "tunesmith/tiny", "training_file": dataset, "evaluation": need}
    refused = client.post(JOBS, json=body)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "evaluation.require")
    for held_out in (
        {"evaluation": need | {"split": 0.1}},
        {"evaluation": need, "validation_file": dataset},
    ):
        created = client.post(JOBS, json=body | held_out).json()
        (requirement,) = created["evaluation"]["require"]
        assert (requirement["metric"], requirement["at_most"]) == ("loss", 1.2)


@pytest.mark.parametrize(
    ("evaluation", "param"),
    [
        ({"samples": 501}, "evaluation.samples"),
        ({"samples": True}, "evaluation.samples"),
        ({"prompts": ["a"] * 9}, "evaluation.prompts"),
        ({"prompts": [""]}, "evaluation.prompts[0]"),
        ({"prompts": [[]]}, "evaluation.prompts[0]"),
        ({"graders": [{"type": "no"}]}, "evaluation.graders[0]"),
        ({"graders": [CHECK | {"input": "{{item.}}"}]}, "evaluation.graders[0].input"),
        ({"graders": [CHECK, CHECK]}, "evaluation"),
        ({"split": 0.1, "require": [{"metric": "loss"}]}, "evaluation.require[0]"),
        ({"split": 0.1, "require": [{"metric": "blue", "at_least": 1}]}, "evaluation"),
    ],
)
def test_evaluations_that_cannot_work_are_refused(
    client: httpx.Client, dataset: str, evaluation: dict[str, Any], param: str
) -> None:
    body = {"model": "tunesmith/tiny", "training_file": dataset, "evaluation": evaluation}
    answer = client.post(JOBS, json=body)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"].startswith(param), answer.text


def test_models_of_graders_are_resolved_when_the_job_is_created(
    api: Api, client: httpx.Client, create_job: Callable[..., str]
) -> None:
    judge = {
        "type": "score_model",
        "name": "judge",
        "model": "tiny",
        "input": [{"role": "user", "content": "{{sample.output_text}}"}],
    }
    job_id = create_job(evaluation={"split": 0.1, "graders": [judge]})
    with api.database.reading() as session:
        stored = get_owned(session, Job, "default", job_id).spec
    assert stored["grader_models"]["tiny"]["id"] == "tunesmith/tiny"
    assert client.get(f"{JOBS}/{job_id}").json()["evaluation"]["graders"][0]["model"] == "tiny"
    unknown = {"graders": [judge | {"model": "no/such"}]}
    file_id = client.get("/v1/files").json()["data"][0]["id"]
    answer = client.post(
        JOBS, json={"model": "tiny", "training_file": file_id, "evaluation": unknown}
    )
    assert (answer.status_code, answer.json()["error"]["param"]) == (
        404,
        "evaluation.graders[0].model",
    )
