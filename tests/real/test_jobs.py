"""Jobs on SmolLM2 through the whole service; their endpoints say what plain PEFT says."""

from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean

import pytest
from openai import OpenAI
from openai.types.fine_tuning import FineTuningJob
from transformers import AutoTokenizer

from tests.end_to_end.bundles import Bundle
from tests.end_to_end.service import (
    Service,
    download_adapter,
    messages_of,
    metrics_of,
    upload,
    wait_until,
    weights_hash,
)
from tests.real import rows
from tests.real.answers import require_equal, written_by_the_endpoint, written_by_transformers
from tests.real.jobs import JOBS, QUESTION

NEW_TOKENS = 16
TIMEOUT_SECONDS = 1500
"""For one job, on a machine that others use too."""

pytestmark = [
    pytest.mark.timeout(TIMEOUT_SECONDS + 300),
    # PEFT's and transformers' own warnings while they load what they are given
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


@dataclass(frozen=True)
class Workshop:
    client: OpenAI
    files: dict[str, str]
    jobs: dict[str, str] = field(default_factory=dict)
    """Ids of what was submitted, by the names of the cases."""

    def finished(self, name: str) -> FineTuningJob:
        """Return the job of a case, which is submitted the first time that it is asked for."""
        if name not in self.jobs:
            case = JOBS[name]
            job = self.client.fine_tuning.jobs.create(**case.request(self.files[case.file]))
            self.jobs[name] = job.id
        return wait_until(
            self.client, self.jobs[name], "succeeded", silence_seconds=TIMEOUT_SECONDS
        )


@pytest.fixture(scope="module")
def workshop(service: Service, smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """A service with every file in it."""
    folder = tmp_path_factory.mktemp("files")
    rows.write_long_answers(folder / "long.jsonl", AutoTokenizer.from_pretrained(smollm2))
    rows.write_chat(folder / "chat.jsonl")
    rows.write_turns(folder / "turns.jsonl")
    rows.write_tools(folder / "tools.jsonl")
    rows.write_completions(folder / "completions.jsonl")
    rows.write_texts(folder / "texts.jsonl")
    rows.write_preferences(folder / "preferences.jsonl")
    rows.write_rated(folder / "rated.jsonl")
    client = service.client
    return Workshop(client, {path.name: upload(client, path) for path in folder.iterdir()})


def test_forty_rows_with_long_answers_and_all_defaults_become_a_model(
    workshop: Workshop, smollm2: Path, tmp_path: Path
) -> None:
    client = workshop.client
    job = client.fine_tuning.jobs.create(
        model="smollm2", training_file=workshop.files["long.jsonl"], seed=1
    )
    job = wait_until(client, job.id, "succeeded", silence_seconds=TIMEOUT_SECONDS)
    losses = [each["train_loss"] for each in metrics_of(client, job.id)]
    assert mean(losses[-5:]) < mean(losses[:5]) - 0.1
    assert job.fine_tuned_model
    parity = client.models.retrieve(job.fine_tuned_model).model_dump()["parity"]
    assert parity["status"] == "passed", parity
    bundle = Bundle(download_adapter(client, job.id, tmp_path / "bundle"), smollm2, job)
    question = [rows.user("What does `json.dumps` of Python do?")]
    require_same_answer(client, job, bundle, question)


@pytest.mark.parametrize("name", JOBS)
def test_endpoint_answers_as_the_bundle_does_in_plain_peft(
    workshop: Workshop, smollm2: Path, name: str, tmp_path: Path
) -> None:
    client, job = workshop.client, workshop.finished(name)
    assert job.fine_tuned_model
    parity = client.models.retrieve(job.fine_tuned_model).model_dump()["parity"]
    assert parity["status"] == "passed", parity
    bundle = Bundle(download_adapter(client, job.id, tmp_path / "bundle"), smollm2, job)
    require_same_answer(client, job, bundle, QUESTION)
    tuned, base = (
        written_by_the_endpoint(client, model, QUESTION, 1)[0]
        for model in (job.fine_tuned_model, job.model)
    )
    assert tuned.text != base.text or tuned.logprob != pytest.approx(base.logprob, abs=1e-2)


def require_same_answer(
    client: OpenAI, job: FineTuningJob, bundle: Bundle, messages: list[dict[str, str]]
) -> None:
    """Ask twice, with messages and with the tokens that transformers makes of them."""
    assert job.fine_tuned_model
    prompt = bundle.tokenizer(bundle.chat_prompt(messages), add_special_tokens=False).input_ids
    expected = written_by_transformers(bundle.model, bundle.tokenizer, prompt, NEW_TOKENS)
    assert expected, "the model ends at once; train it less"
    for asked in (messages, prompt):
        answer = written_by_the_endpoint(client, job.fine_tuned_model, asked, NEW_TOKENS)
        require_equal(answer, expected)


def test_preference_job_begins_at_its_reference_and_moves_away(workshop: Workshop) -> None:
    job = workshop.finished("dpo")
    losses = [each["train_loss"] for each in metrics_of(workshop.client, job.id)]
    assert losses[0] == pytest.approx(0.6931, abs=1e-3)
    assert losses[-1] < 0.69


def test_paused_run_ends_with_the_weights_of_an_uninterrupted_one(workshop: Workshop) -> None:
    client = workshop.client

    def submit() -> str:
        return client.fine_tuning.jobs.create(
            model="smollm2",
            training_file=workshop.files["chat.jsonl"],
            seed=3,
            extra_body={
                "training": {"max_steps": 10, "batch_size": 2, "precision": "fp32"},
                "strategy": {"type": "lora", "rank": 4, "dropout": 0.1},
            },
        ).id

    halted = submit()
    wait_until(client, halted, "running", silence_seconds=TIMEOUT_SECONDS)
    client.fine_tuning.jobs.pause(halted)
    whole = wait_until(client, submit(), "succeeded", silence_seconds=TIMEOUT_SECONDS)
    paused = client.fine_tuning.jobs.retrieve(halted)
    assert paused.status == "queued" and paused.paused_at is not None  # type: ignore[attr-defined]
    client.fine_tuning.jobs.resume(halted)
    wait_until(client, halted, "succeeded", silence_seconds=TIMEOUT_SECONDS)
    assert weights_hash(client, halted) == weights_hash(client, whole.id)


def test_rows_with_tools_are_refused_where_the_template_hides_them(workshop: Workshop) -> None:
    client = workshop.client
    job = client.fine_tuning.jobs.create(
        model="smollm2", training_file=workshop.files["tools.jsonl"]
    )
    job = wait_until(client, job.id, "failed", silence_seconds=TIMEOUT_SECONDS)
    assert job.error and job.error.code == "invalid_training_file"
    assert job.error.message.startswith("Lines 1, 2, ") and "tools" in job.error.message
    assert "Fine-tuning job started" not in messages_of(client, job.id)
