"""Every strategy, objective and task over HTTP: submitted, followed, downloaded, and answering.

Models are asked twice, at the endpoints and in the bundle that was downloaded, loaded by plain
transformers and PEFT; both must say the same.
"""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import httpx
import pytest
from openai.types.fine_tuning import FineTuningJob

from core.artifacts.manifest import verify
from core.catalog.strategies import STRATEGIES
from core.spec.objective import MethodName
from tests.end_to_end.bundles import Answer, Bundle
from tests.end_to_end.jobs import CHAT, JOBS, KINDS, STEPS, WORDS, write_files
from tests.end_to_end.service import (
    BASE_MODEL,
    Service,
    download_adapter,
    messages_of,
    metrics_of,
    running_service,
    upload,
    wait_until,
)

FAMILIES = ("llama", "bert", "t5", "bart")
TINY_FOLDER = Path(__file__).parents[2] / "core" / "models" / "tiny"
NEW_TOKENS = 8
METRICS = {"step", "total_steps", "train_loss", "train_mean_token_accuracy", "learning_rate"}

# PEFT's and transformers' own warnings while they load what they are given
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@dataclass(frozen=True)
class Workshop:
    """A service with tiny bases of several families, and the jobs submitted to it."""

    service: Service
    bases: dict[str, Path]
    files: dict[str, str]
    jobs: dict[str, str]
    """Their ids by the names of their cases."""

    def submit(self, name: str) -> None:
        case = JOBS[name]
        request = case.request(self.files[case.file])
        self.jobs[name] = self.service.client.fine_tuning.jobs.create(**request).id

    def finished(self, name: str) -> FineTuningJob:
        return wait_until(self.service.client, self.jobs[name], "succeeded")


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    """All jobs are submitted at once, and train while the first tests look at results."""
    from tests.core.tiny import save_base

    folder = tmp_path_factory.mktemp("workshop")
    bases = {f"tiny/{family}": folder / family for family in FAMILIES}
    for family in FAMILIES:
        save_base(folder / family, family)
    catalog = "".join(f'[[bases]]\nid = "{id_}"\nsource = "{bases[id_]}"\n' for id_ in bases)
    (folder / "bases.toml").write_text(catalog, encoding="utf-8")
    settings = {
        "TUNESMITH_CATALOG_FILE": str(folder / "bases.toml"),
        "TUNESMITH_ENGINE_PRECISION": "fp32",
    }
    with running_service(folder / "data", settings) as service:
        files = {name: upload(service.client, path) for name, path in write_files(folder).items()}
        workshop = Workshop(service, bases | {BASE_MODEL: TINY_FOLDER}, files, {})
        for name in JOBS:
            workshop.submit(name)
        yield workshop


def test_every_strategy_and_method_has_a_case() -> None:
    assert {case.strategy["type"] for case in JOBS.values()} == set(STRATEGIES)
    methods = {case.method.get("type", "supervised") for case in JOBS.values()}
    assert methods == set(get_args(MethodName))


def test_job_is_followed_live_from_its_creation_to_its_end(workshop: Workshop) -> None:
    job_id = workshop.jobs["lora"]
    url = f"{workshop.service.url}/v1/fine_tuning/jobs/{job_id}/events?stream=true"
    with httpx.stream("GET", url, timeout=200) as stream:
        lines = [line for line in stream.iter_lines() if line.startswith("data: ")]
    events = [json.loads(line.removeprefix("data: ")) for line in lines]
    messages = [event["message"] for event in events]
    assert messages[0].startswith("Created fine-tuning job")
    assert messages[-1] == "The job has successfully completed"
    assert [each["data"]["step"] for each in events if each["type"] == "metrics"] == [1, 2, 3]
    assert workshop.finished("lora").status == "succeeded"


@pytest.mark.parametrize("name", JOBS)
def test_tuned_model_answers_at_the_endpoints_as_its_bundle_does(
    workshop: Workshop, name: str, tmp_path: Path
) -> None:
    job, client = workshop.finished(name), workshop.service.client
    assert job.trained_tokens and job.fine_tuned_model
    parity = client.models.retrieve(job.fine_tuned_model).model_dump()["parity"]
    assert parity["status"] == "passed", parity
    assert parity["max_difference_nats"] < 1e-3
    folder = download_adapter(client, job.id, tmp_path / "bundle")
    assert verify(folder).weights_sha256
    is_full = JOBS[name].strategy["type"] == "full"
    layout = {"config.json", "model.safetensors"} if is_full else {"adapter_config.json"}
    assert layout <= {path.name for path in folder.iterdir()}
    bundle = Bundle(folder, workshop.bases[job.model], job)

    for kind in JOBS[name].asked:
        expected = bundle.write(bundle.chat_prompt(CHAT) if kind == "chat" else "cat", NEW_TOKENS)
        answer = ask(workshop, job.fine_tuned_model, kind)
        assert answer.text
        assert answer.is_close_to(expected), f"{kind}: {answer}, not {expected}"
        assert not ask(workshop, job.model, kind).is_close_to(expected), "nothing was trained"
    if bundle.job.task == "classification":
        texts = [f"this is {word}" for word in WORDS[:4]]
        results = classify(workshop, job.fine_tuned_model, texts)
        for text, result in zip(texts, results, strict=True):
            scores = result["label"]["scores"]
            assert set(scores) == set(KINDS)
            assert scores == pytest.approx(bundle.scores(text), abs=1e-4)


def ask(workshop: Workshop, model: str, kind: str) -> Answer:
    """Return the likeliest answer of a model; its streamed answer must be the same."""
    client = workshop.service.client
    options: dict[str, Any] = {"model": model, "max_tokens": NEW_TOKENS, "temperature": 0}
    if kind == "chat":
        options["messages"] = CHAT
        choice = client.chat.completions.create(**options, logprobs=True).choices[0]
        chunks = client.chat.completions.create(**options, stream=True)
        streamed = "".join(each.choices[0].delta.content or "" for each in chunks)
        assert choice.logprobs is not None
        logprobs = [token.logprob for token in choice.logprobs.content or ()]
        answer = Answer(choice.message.content or "", logprobs)
    else:
        options["prompt"] = "cat"
        completion = client.completions.create(**options, logprobs=1).choices[0]
        chunks = client.completions.create(**options, stream=True)
        streamed = "".join(each.choices[0].text for each in chunks)
        assert completion.logprobs is not None
        answer = Answer(completion.text, list(completion.logprobs.token_logprobs or ()))
    assert streamed == answer.text
    return answer


def classify(workshop: Workshop, model: str, texts: list[str]) -> list[dict[str, Any]]:
    answer = httpx.post(
        f"{workshop.service.url}/v1/classifications", json={"model": model, "input": texts}
    )
    assert answer.status_code == 200, answer.text
    results: list[dict[str, Any]] = answer.json()["results"]
    return results


@pytest.mark.parametrize("name", JOBS)
def test_job_says_what_it_did_in_events_metrics_and_result_file(
    workshop: Workshop, name: str
) -> None:
    job, client = workshop.finished(name), workshop.service.client
    metrics = metrics_of(client, job.id)
    assert [each["step"] for each in metrics] == list(range(1, STEPS + 1))
    assert all(each.keys() >= METRICS for each in metrics)
    rows = client.files.content(job.result_files[0]).text.splitlines()
    assert rows[0] == "step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy"
    losses = [float(row.split(",")[1]) for row in rows[1:]]
    assert losses == pytest.approx([each["train_loss"] for each in metrics], abs=1e-6)
    messages = messages_of(client, job.id)
    told = ["Files validated, moving job to queued state", "Fine-tuning job started"]
    assert [message for message in messages if message in told] == told
    assert any(message.startswith("Training ") for message in messages)
    assert f"New fine-tuned model created: {job.fine_tuned_model}" in messages


def test_preference_job_shows_the_method_it_was_asked_for(workshop: Workshop) -> None:
    job = workshop.finished("dpo")
    assert job.method is not None and job.method.dpo is not None
    assert job.method.type == "dpo"
    assert job.method.dpo.hyperparameters and job.method.dpo.hyperparameters.beta == 0.2
    first = metrics_of(workshop.service.client, job.id)[0]
    assert first["train_loss"] == pytest.approx(0.6931, abs=1e-3)  # policy and reference are one


def test_mask_of_a_job_and_of_a_planned_one_agree(workshop: Workshop) -> None:
    mask = {}
    for name in ("lora", "seq2seq", "dpo", "decoder, several labels"):
        job, case = workshop.finished(name), JOBS[name]
        with httpx.Client(base_url=f"{workshop.service.url}/v1/fine_tuning") as http:
            of_job = http.get(f"/jobs/{job.id}/mask").json()
            request = case.request(workshop.files[case.file])
            body = {**request.pop("extra_body"), **request}
            planned = http.post("/masks", json=body).json()
            deadline = time.monotonic() + 60
            while planned["status"] == "queued":
                assert time.monotonic() < deadline, "the audit is not done"
                time.sleep(0.05)
                planned = http.get(f"/masks/{planned['id']}").json()
        assert planned["error"] is None
        assert of_job["rows"] == planned["rows"]
        assert [row["line"] for row in of_job["rows"]]
        mask[name] = of_job["rows"][0]

    (text,) = mask["lora"]["parts"]
    trained = "".join(token["text"] for token in text["tokens"] if token["trained"])
    assert trained == "email<|im_end|>"
    source, target = mask["seq2seq"]["parts"]
    assert (source["name"], source["trained_tokens"]) == ("source", 0)
    assert "".join(token["text"] for token in target["tokens"]) == "catcat</s>"
    assert [part["name"] for part in mask["dpo"]["parts"]] == ["chosen", "rejected"]
    assert mask["decoder, several labels"]["labels"] == ["animal", "colour"]


@pytest.mark.parametrize(
    "name",
    ["full", "prompt", "decoder, several labels"],
)
def test_training_goes_on_from_the_weights_of_a_tuned_model(workshop: Workshop, name: str) -> None:
    client, parent = workshop.service.client, workshop.finished(name)
    no_change = {"max_steps": 1, "learning_rate": 1e-12, "precision": "fp32"}
    job = client.fine_tuning.jobs.create(
        model=parent.fine_tuned_model,
        training_file=workshop.files[JOBS[name].file],
        extra_body={"training": no_change},
    )
    job = wait_until(client, job.id, "succeeded")
    assert (job.model, job.strategy) == (parent.model, parent.strategy)
    models = (parent.fine_tuned_model, job.fine_tuned_model)
    if JOBS[name].asked:
        first, further = (ask(workshop, model, "chat") for model in models)
        assert further.is_close_to(first)
    else:
        first, further = (classify(workshop, model, ["this is red"])[0] for model in models)
        assert further["label"]["scores"] == pytest.approx(first["label"]["scores"], abs=1e-4)


UNFIT = {
    "strategy.target_modules": {"type": "lora", "target_modules": ["q_porj"]},
    "strategy.rank": {"type": "lora", "rank": 1024},
    "strategy.reduction_factor": {"type": "bottleneck", "reduction_factor": 1024},
}


@pytest.mark.parametrize("param", UNFIT)
def test_strategy_that_does_not_fit_the_base_ends_the_job_before_it_runs(
    workshop: Workshop, param: str
) -> None:
    client = workshop.service.client
    job = client.fine_tuning.jobs.create(
        model=BASE_MODEL,
        training_file=workshop.files["chat.jsonl"],
        extra_body={"strategy": UNFIT[param]},
    )
    job = wait_until(client, job.id, "failed")
    assert job.error and job.error.param == param
    messages = messages_of(client, job.id)
    assert messages[-1] == f"The job failed: {job.error.message}"
    assert "Fine-tuning job started" not in messages


def test_wrong_tasks_are_refused_with_the_field(workshop: Workshop) -> None:
    client = workshop.service.client
    encoder = workshop.finished("encoder, one label").fine_tuned_model
    jobs = [job.id for job in client.fine_tuning.jobs.list()]
    answers = [
        httpx.post(f"{workshop.service.url}/v1/{route}", json={"model": model, **body})
        for route, model, body in (
            ("chat/completions", encoder, {"messages": CHAT}),
            ("classifications", BASE_MODEL, {"input": "cat"}),
            (
                "fine_tuning/jobs",
                "tiny/bert",
                {"training_file": workshop.files["chat.jsonl"]},
            ),
            (
                "fine_tuning/jobs",
                "tiny/t5",
                {
                    "training_file": workshop.files["preferences.jsonl"],
                    "method": {"type": "dpo"},
                },
            ),
        )
    ]
    refused = [(answer.status_code, answer.json()["error"]["code"]) for answer in answers]
    assert refused == [
        (400, "not_a_generator"),
        (400, "not_a_classifier"),
        (400, "impossible_combination"),
        (400, "impossible_combination"),
    ]
    assert [job.id for job in client.fine_tuning.jobs.list()] == jobs
