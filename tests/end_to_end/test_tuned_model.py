"""What comes out of a job: a model that answers, and the same adapter for plain PEFT."""

import json
from pathlib import Path
from typing import Any

import torch
from openai.types.chat import ChatCompletion
from openai.types.fine_tuning import FineTuningJob
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from core.models.precision import dtype_of
from tests.end_to_end.service import Service, download_adapter, heldout_questions

PROMPTS = 50
NEW_TOKENS = 12
NEAR_TIE_NATS = 0.1
"""Rounding in 16 bits may decide between tokens that are closer than this."""


def test_job_reports_what_it_did(service: Service, tuned: FineTuningJob) -> None:
    assert tuned.trained_tokens and tuned.trained_tokens > 0
    assert tuned.fine_tuned_model and tuned.fine_tuned_model.startswith("ft:tiny:")
    client = service.client
    metrics = client.files.content(tuned.result_files[0]).text.splitlines()
    assert metrics[0] == "step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy"
    losses = [float(line.split(",")[1]) for line in metrics[1:]]
    assert sum(losses[-5:]) < sum(losses[:5])
    checkpoints = client.fine_tuning.jobs.checkpoints.list(tuned.id).data
    assert [c.step_number for c in checkpoints] == [60, 30]
    messages = [e.message for e in client.fine_tuning.jobs.list_events(tuned.id, limit=3).data]
    assert messages[0] == "The job has successfully completed"
    verdict: Any = client.get(f"/fine_tuning/jobs/{tuned.id}/evaluation", cast_to=object)
    assert messages[2].startswith(verdict["sentence"])
    assert verdict["status"] == "unjudged", "no rows are held out"


def test_every_checkpoint_answers(service: Service, tuned: FineTuningJob) -> None:
    client = service.client
    for checkpoint in client.fine_tuning.jobs.checkpoints.list(tuned.id).data:
        answer = client.chat.completions.create(
            model=checkpoint.fine_tuned_model_checkpoint,
            messages=heldout_questions(1)[0],
            max_tokens=4,
        )
        assert answer.usage and answer.usage.completion_tokens > 0


def test_streamed_answer_equals_plain_answer(service: Service, tuned: FineTuningJob) -> None:
    request = {
        "model": tuned.fine_tuned_model,
        "messages": heldout_questions(1)[0],
        "max_tokens": NEW_TOKENS,
        "temperature": 0.7,
        "seed": 11,
    }
    plain = service.client.chat.completions.create(**request)
    chunks = list(service.client.chat.completions.create(**request, stream=True))
    streamed = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert streamed == plain.choices[0].message.content


def test_plain_peft_gives_the_answers_of_the_endpoint(
    service: Service, tuned: FineTuningJob, tmp_path: Path
) -> None:
    folder = download_adapter(service.client, tuned.id, tmp_path / "adapter")
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["weights_sha256"]
    base_folder = Path(__file__).parents[2] / "core" / "models" / "tiny"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    dtype = dtype_of(manifest["precision"])
    base = AutoModelForCausalLM.from_pretrained(base_folder, dtype=dtype)
    model = PeftModel.from_pretrained(base, folder).eval()

    compared = 0
    for messages in heldout_questions(PROMPTS):
        endpoint = service.client.chat.completions.create(
            model=tuned.fine_tuned_model,
            messages=messages,
            max_tokens=NEW_TOKENS,
            temperature=0,
            logprobs=True,
            top_logprobs=2,
        )
        if least_margin(endpoint) < NEAR_TIE_NATS:
            continue
        compared += 1
        prompt = tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        with torch.inference_mode():
            tokens = model.generate(**prompt, max_new_tokens=NEW_TOKENS, do_sample=False)[0]
        new_tokens = tokens[prompt["input_ids"].shape[1] :]
        expected = tokenizer.decode(new_tokens, skip_special_tokens=True)
        assert endpoint.choices[0].message.content == expected
    assert compared > PROMPTS / 2


def least_margin(answer: ChatCompletion) -> float:
    """Return the smallest lead, in nats, of a chosen token over the next best one."""
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None and logprobs.content
    best_two = [sorted(each.logprob for each in token.top_logprobs) for token in logprobs.content]
    return min(best - second for second, best in best_two)
