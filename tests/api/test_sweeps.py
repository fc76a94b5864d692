"""Sweeps over HTTP: what is created, what is refused, and what is shown."""

from typing import Any

import httpx
import pytest

from core.records.claims import claim_next, stop_at_rung
from core.records.owned import get_owned
from core.records.tables import Job
from core.spec.job import JobSpec
from core.spec.trial import TrialResult
from core.sweeps.advance import advance_sweeps
from tests.api.live import Api

SWEEPS = "/v1/fine_tuning/sweeps"
JOBS = "/v1/fine_tuning/jobs"
RATE = "training.learning_rate"
RATES = [1e-3, 2e-3, 4e-3, 8e-3]
EXACT = {
    "type": "string_check",
    "name": "exact",
    "input": "{{sample.output_text}}",
    "reference": "{{item.reference}}",
    "operation": "eq",
}
GRADED = {"split": 0.1, "graders": [EXACT]}


def body_of(dataset: str, **more: Any) -> dict[str, Any]:
    job = {
        "model": "tunesmith/tiny",
        "training_file": dataset,
        "evaluation": {"split": 0.1},
        "metadata": {"team": "red"},
    }
    search = {"type": "grid", "parameters": {RATE: RATES}}
    return {"job": job | more.pop("job", {}), "search": search} | more


def create(client: httpx.Client, dataset: str, **more: Any) -> dict[str, Any]:
    answer = client.post(SWEEPS, json=body_of(dataset, **more))
    assert answer.status_code == 200, answer.text
    return answer.json()  # type: ignore[no-any-return]


def refusal(client: httpx.Client, dataset: str, status: int = 400, **more: Any) -> tuple[str, str]:
    """Return field and message; no job may have been made."""
    answer = client.post(SWEEPS, json=body_of(dataset, **more))
    assert answer.status_code == status, answer.text
    assert client.get(JOBS).json()["data"] == client.get(SWEEPS).json()["data"] == []
    error = answer.json()["error"]
    return error["param"], error["message"]


def spec_of(api: Api, job_id: str) -> JobSpec:
    with api.database.reading() as session:
        return JobSpec.model_validate(get_owned(session, Job, "default", job_id).spec)


def reach_rung(api: Api, loss: float) -> str:
    """Let a worker bring the oldest waiting trial to its rung; return the job."""
    with api.database.writing() as session:
        held = claim_next(session, "worker-test", 30)
        assert held is not None
        share = get_owned(session, Job, "default", held.job_id).pause_at_share
        assert share is not None
        stop_at_rung(session, held, TrialResult(share=share, step=1, loss=loss, accuracy=0.5))
    return held.job_id


def test_sweep_makes_an_ordinary_job_for_each_trial(
    api: Api, client: httpx.Client, dataset: str
) -> None:
    sweep = create(client, dataset, suffix="my sweep")
    assert (sweep["object"], sweep["status"], sweep["winner"]) == (
        "fine_tuning.sweep",
        "running",
        None,
    )
    assert sweep["halving"] == {
        "metric": "loss",
        "reduction": 2,
        "first_share": 0.065,
        "growth": 1.5,
        "last_share": 0.33,
        "finalists": 2,
    }
    assert sweep["rungs"] == [
        {"share": 0.065, "trials": 4, "keep": 3},
        {"share": 0.33, "trials": 3, "keep": 2},
    ]
    assert sweep["planned_runs"] == pytest.approx(0.065 + 0.33 + 2)
    assert [trial["parameters"] for trial in sweep["trials"]] == [{RATE: rate} for rate in RATES]
    specs = [spec_of(api, trial["job_id"]) for trial in sweep["trials"]]
    assert [spec.training.learning_rate for spec in specs] == RATES
    assert len({spec.seed for spec in specs}) == 1, "the trials have other held-out rows"
    for trial in sweep["trials"]:
        job = client.get(f"{JOBS}/{trial['job_id']}").json()
        assert (job["sweep_id"], job["status"]) == (sweep["id"], "validating_files")
        assert job["metadata"] == {"team": "red"}
    with api.database.reading() as session:
        job_row = get_owned(session, Job, "default", sweep["trials"][0]["job_id"])
        assert (job_row.suffix, job_row.pause_at_share) == ("my-sweep", 0.065)
    assert len(list((api.folder / "broker" / "messages").glob("*.msg"))) == 4


def test_sweep_over_strategies_models_and_multipliers(
    api: Api, client: httpx.Client, dataset: str
) -> None:
    multiplier = "method.supervised.hyperparameters.learning_rate_multiplier"
    sweep = create(
        client,
        dataset,
        job={"method": {"type": "supervised"}},
        search={
            "type": "list",
            "parameters": {
                "strategy": [{"type": "lora", "rank": 8}, {"type": "full"}],
                "model": ["tunesmith/tiny", "tiny"],
                multiplier: [1.0, 0.5],
            },
        },
        halving=None,
    )
    specs = [spec_of(api, trial["job_id"]) for trial in sweep["trials"]]
    assert [spec.strategy.type for spec in specs] == ["lora", "full"]
    assert [spec.learning_rate_multiplier for spec in specs] == [1.0, 0.5]
    assert (sweep["rungs"], sweep["halving"], sweep["planned_runs"]) == ([], None, 2)
    with api.database.reading() as session:
        jobs = [get_owned(session, Job, "default", t["job_id"]) for t in sweep["trials"]]
    assert [job.requested_model for job in jobs] == ["tunesmith/tiny", "tiny"]
    assert [job.pause_at_share for job in jobs] == [None, None]


def test_random_sweep_shows_its_seed_and_can_be_repeated(
    client: httpx.Client, dataset: str
) -> None:
    search = {
        "type": "random",
        "trials": 5,
        "parameters": {RATE: {"min": 1e-4, "max": 1e-2, "log": True}, "strategy.rank": [4, 8]},
    }
    first = create(client, dataset, search=search)
    again = create(client, dataset, search=search | {"seed": first["search"]["seed"]})
    other = create(client, dataset, search=search)
    drawn = [[t["parameters"] for t in each["trials"]] for each in (first, again, other)]
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize(
    ("more", "param", "message"),
    [
        ({"job": {"evaluation": {}}}, "job.evaluation.split", "compares its trials on held-out"),
        (
            {"halving": {"metric": "exact"}, "job": {"evaluation": GRADED | {"samples": 0}}},
            "job.evaluation.samples",
            "needs answers to held-out rows",
        ),
        ({"job": {"model": "no/model"}}, "job.model", "All trials: "),
        ({"job": {"training_file": "file-none"}}, "job.training_file", "No file"),
        ({"job": {"trainning": {}}}, "job.trainning", "Did you mean 'training'?"),
        (
            {"search": {"type": "grid", "parameters": {RATE: [1e-3, 2.0, 1e-2, 3.0]}}},
            f"search.parameters.{RATE}",
            "Trial 1 (training.learning_rate=2.0): Invalid value for 'training.learning_rate'",
        ),
        (
            {
                "search": {
                    "type": "list",
                    "parameters": {"strategy": [{"type": "full"}] * 2, "strategy.rank": [4, 8]},
                }
            },
            "search.parameters.strategy.rank",
            "Unknown parameter: 'strategy.rank'",
        ),
        (
            {"search": {"type": "grid", "parameters": {"training.max_length": [64, 9999]}}},
            "search.parameters.training.max_length",
            "Trial 1 (training.max_length=9999): training.max_length is 9999, but the context",
        ),
        (
            {"search": {"type": "grid", "parameters": {"seed": [1, 2]}}},
            "search.parameters.seed",
            "trials may differ in model, strategy",
        ),
        (
            {"search": {"type": "grid", "parameters": {RATE: [i / 100 for i in range(1, 66)]}}},
            f"search.parameters.{RATE}",
            "64",
        ),
        ({"search": {"type": "grid", "parameters": {RATE: [1e-3]}}}, "search.parameters", "two or"),
        (
            {"search": {"type": "grid", "parameters": {"strategy.alpha": [8, 16, 8.0]}}},
            "search.parameters",
            "Trials 0 (strategy.alpha=8) and 2 (strategy.alpha=8.0) are the same job",
        ),
        (
            {"search": {"type": "grid", "parameters": {"model": ["tiny", "tunesmith/tiny"]}}},
            "search.parameters",
            "are the same job",
        ),
        ({"halving": {"reduction": 1}}, "halving.reduction", "greater than or equal to 2"),
        ({"halving": {"first_share": 0.5}}, "halving", "must be less than last_share"),
        ({"halving": {"metric": "bleu"}}, "halving.metric", "Known: loss, accuracy."),
    ],
)
def test_refused_sweep_names_the_trial_and_makes_no_job(
    client: httpx.Client, dataset: str, more: dict[str, Any], param: str, message: str
) -> None:
    missing = param in ("job.model", "job.training_file")
    found = refusal(client, dataset, 404 if missing else 400, **more)
    assert found[0] == param and message in found[1], found


def test_sweep_by_a_grader_keeps_it_in_every_trial(
    api: Api, client: httpx.Client, dataset: str
) -> None:
    sweep = create(client, dataset, halving={"metric": "exact"}, job={"evaluation": GRADED})
    assert sweep["halving"]["metric"] == "exact"
    for trial in sweep["trials"]:
        (grader,) = spec_of(api, trial["job_id"]).evaluation.graders
        assert grader.name == "exact"


def test_every_invalid_trial_is_told(client: httpx.Client, dataset: str) -> None:
    rates = [1e-3, *(2.0 + number for number in range(7))]
    _, message = refusal(client, dataset, search={"type": "grid", "parameters": {RATE: rates}})
    assert all(f"Trial {number} (" in message for number in range(1, 6))
    assert message.endswith("Also invalid: trials 6, 7.")


def test_sweep_shows_its_trials_until_the_winner_has_a_model(
    api: Api, client: httpx.Client, dataset: str
) -> None:
    halving = {"first_share": 0.125, "growth": 2, "last_share": None, "finalists": 1}
    sweep_id = create(client, dataset, halving=halving)["id"]
    look = lambda: client.get(f"{SWEEPS}/{sweep_id}").json()  # noqa: E731
    for loss in (2.0, 1.0, 3.0):
        reach_rung(api, loss)
    assert [trial["status"] for trial in look()["trials"]] == [*["waiting"] * 3, "queued"]
    waiting = look()["trials"][0]
    assert waiting["results"] == [
        {"share": 0.125, "step": 1, "loss": 2.0, "accuracy": 0.5, "score": None}
    ]
    refused = client.post(f"{JOBS}/{waiting['job_id']}/resume")
    assert (
        refused.status_code == 409 and "waits for the other" in refused.json()["error"]["message"]
    )
    reach_rung(api, 4.0)
    advance_sweeps(api.database)
    sweep = look()
    assert (sweep["rung"], sweep["status"]) == (1, "running")
    assert [trial["status"] for trial in sweep["trials"]] == ["queued", "queued", "lost", "lost"]
    lost = client.get(f"{JOBS}/{sweep['trials'][3]['job_id']}").json()
    assert lost["status"] == "cancelled"
    newest = client.get(f"{JOBS}/{lost['id']}/events").json()["data"][0]
    assert newest["message"] == sweep["trials"][3]["reason"]
    assert "number 4 of 4 with a held-out loss of 4.0000" in newest["message"]
    for loss in (2.0, 1.0):
        reach_rung(api, loss)
    advance_sweeps(api.database)
    assert client.post(f"{JOBS}/{look()['trials'][1]['job_id']}/cancel").status_code == 200
    advance_sweeps(api.database)
    sweep = look()
    assert (sweep["status"], sweep["winner"]) == ("failed", None)
    assert sweep["error"]["code"] == "all_trials_failed"


def test_sweep_is_paused_resumed_cancelled_and_then_final(
    client: httpx.Client, dataset: str
) -> None:
    first, second = (create(client, dataset)["id"] for _ in range(2))
    page = client.get(SWEEPS, params={"limit": 1}).json()
    assert [each["id"] for each in page["data"]] == [second] and page["has_more"]
    assert [each["id"] for each in client.get(SWEEPS, params={"after": second}).json()["data"]] == [
        first
    ]
    for move, status, of_trials in (
        ("pause", "paused", "paused"),
        ("resume", "running", "queued"),
        ("cancel", "cancelled", "cancelled"),
    ):
        answer = client.post(f"{SWEEPS}/{first}/{move}")
        assert answer.status_code == 200, answer.text
        assert answer.json()["status"] == status
        assert {trial["status"] for trial in answer.json()["trials"]} == {of_trials}
    for move in ("pause", "resume", "cancel"):
        answer = client.post(f"{SWEEPS}/{first}/{move}")
        assert answer.status_code == 409 and answer.headers["x-should-retry"] == "false"
        error = answer.json()["error"]
        assert (error["param"], error["code"]) == ("sweep_id", "invalid_sweep_status")
        assert client.post(f"{SWEEPS}/sweep-none/{move}").status_code == 404
