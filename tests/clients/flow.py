"""The whole of Tunesmith through the stock Python client; needs nothing but `openai`.

python tests/clients/flow.py http://127.0.0.1:8000/v1
"""

import io
import json
import os
import sys
import time
import zipfile

import openai
from openai import HttpxBinaryResponseContent, OpenAI
from openai.types.chat import ChatCompletion
from openai.types.fine_tuning import FineTuningJob

BASE_MODEL = "tunesmith/tiny"
TIMEOUT_SECONDS = 300
MESSAGES = [{"role": "user", "content": "question 1"}]

ROWS = "".join(
    json.dumps(
        {
            "messages": [
                {"role": "user", "content": f"question {index}"},
                {"role": "assistant", "content": f"answer {index}"},
            ]
        }
    )
    + "\n"
    for index in range(40)
).encode()


def main(base_url: str) -> None:
    client = OpenAI(
        base_url=base_url, api_key=os.environ.get("OPENAI_API_KEY", "none"), max_retries=2
    )
    file_id = use_files(client)
    job = use_jobs(client, file_id)
    use_models(client, job)
    use_chat(client, job.fine_tuned_model or "")
    use_completions(client, job.fine_tuned_model or "")
    use_batches(client)
    make_mistakes(client, file_id)
    clean_up(client, job, file_id)


def use_files(client: OpenAI) -> str:
    file = client.files.create(file=("rows.jsonl", ROWS), purpose="fine-tune")
    assert (file.status, file.bytes, file.filename) == ("processed", len(ROWS), "rows.jsonl")
    assert client.files.retrieve(file.id) == file
    assert client.files.content(file.id).read() == ROWS
    assert file.id in [each.id for each in client.files.list(purpose="fine-tune", limit=2)]
    return file.id


def use_jobs(client: OpenAI, file_id: str) -> FineTuningJob:
    """Run one job to its end and cancel another."""
    jobs = client.fine_tuning.jobs
    run = str(time.time())
    job = jobs.create(
        model=BASE_MODEL,
        training_file=file_id,
        validation_file=file_id,
        suffix="flow",
        seed=1,
        metadata={"run": run},
        method={
            "type": "supervised",
            "supervised": {"hyperparameters": {"n_epochs": 1, "batch_size": 4}},
        },
        extra_body={"strategy": {"type": "lora", "r": 4}, "training": {"learning_rate": 1e-3}},
    )
    assert [each.id for each in jobs.list(metadata={"run": run})] == [job.id]
    job = wait_for(client, job.id, "succeeded")
    assert job.trained_tokens and job.fine_tuned_model
    events = list(jobs.list_events(job.id, limit=2))  # several pages
    assert events[0].message == "The job has successfully completed"
    assert events[-1].message.startswith("Created fine-tuning job")
    checkpoints = list(jobs.checkpoints.list(job.id))
    assert checkpoints[0].fine_tuned_model_checkpoint.startswith(job.fine_tuned_model)
    assert client.files.content(job.result_files[0]).text.startswith("step,")
    path = f"/fine_tuning/jobs/{job.id}/adapter"
    archive = client.get(path, cast_to=HttpxBinaryResponseContent).read()
    assert "manifest.json" in zipfile.ZipFile(io.BytesIO(archive)).namelist()

    other = jobs.create(
        model=BASE_MODEL,
        training_file=file_id,
        suffix="to-cancel",
        hyperparameters={"n_epochs": 50, "batch_size": 1},
    )
    assert jobs.cancel(other.id).status == "cancelled"
    try:
        jobs.cancel(other.id)
    except openai.ConflictError as refused:
        assert refused.param == "fine_tuning_job_id"
    else:
        raise AssertionError("a job was cancelled twice")
    return job


def use_batches(client: OpenAI) -> None:
    """Run one batch to its end and cancel another."""
    url = "/v1/chat/completions"
    body = {"model": BASE_MODEL, "messages": MESSAGES, "max_tokens": 4}
    lines = [
        {"custom_id": f"request-{number}", "method": "POST", "url": url, "body": each}
        for number, each in enumerate((body, body, body | {"model": "no/model"}))
    ]
    content = "".join(json.dumps(line) + "\n" for line in lines).encode()
    file = client.files.create(file=("requests.jsonl", content), purpose="batch")
    assert (file.purpose, file.status) == ("batch", "processed")
    options = {"input_file_id": file.id, "endpoint": url, "completion_window": "24h"}
    batch = client.batches.create(**options, metadata={"kind": "flow"})
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while (batch := client.batches.retrieve(batch.id)).status != "completed":
        assert batch.status in ("validating", "in_progress", "finalizing"), batch.to_json()
        assert time.monotonic() < deadline, batch.to_json()
        time.sleep(0.1)
    counts = batch.request_counts
    assert counts and (counts.total, counts.completed, counts.failed) == (3, 2, 1)
    assert batch.metadata == {"kind": "flow"}
    assert batch.output_file_id and batch.error_file_id
    answers = client.files.content(batch.output_file_id).text.splitlines()
    found = {line["custom_id"]: line for line in map(json.loads, answers)}
    assert found.keys() == {"request-0", "request-1"}
    answer = ChatCompletion.model_validate(found["request-0"]["response"]["body"])
    assert answer.usage and answer.usage.completion_tokens > 0
    [refused] = map(json.loads, client.files.content(batch.error_file_id).text.splitlines())
    assert refused["response"]["status_code"] == 404

    other = client.batches.create(**options)
    assert client.batches.cancel(other.id).status in ("cancelling", "cancelled")
    assert [each.id for each in client.batches.list(limit=1)][:2] == [other.id, batch.id]


def wait_for(client: OpenAI, job_id: str, status: str) -> FineTuningJob:
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        job = client.fine_tuning.jobs.retrieve(job_id)
        if job.status == status:
            return job
        assert job.status not in ("succeeded", "failed", "cancelled"), job.to_json()
        time.sleep(0.1)
    raise AssertionError(f"{job_id} is not {status} after {TIMEOUT_SECONDS} seconds")


def use_models(client: OpenAI, job: FineTuningJob) -> None:
    assert job.fine_tuned_model is not None
    names = [model.id for model in client.models.list()]
    assert {BASE_MODEL, job.fine_tuned_model} <= set(names)
    for name in (BASE_MODEL, job.fine_tuned_model):
        assert client.models.retrieve(name).id == name


def use_chat(client: OpenAI, model: str) -> None:
    options = {"model": model, "messages": MESSAGES, "max_tokens": 8, "seed": 3}
    plain = client.chat.completions.create(
        **options, temperature=0.5, top_p=0.9, logprobs=True, top_logprobs=2, n=2
    )
    assert len(plain.choices) == 2
    assert plain.usage and plain.usage.completion_tokens > 0
    assert plain.choices[0].logprobs and plain.choices[0].logprobs.content
    single = client.chat.completions.create(**options)
    text, usage = "", None
    for chunk in client.chat.completions.create(
        **options, stream=True, stream_options={"include_usage": True}
    ):
        text += "".join(choice.delta.content or "" for choice in chunk.choices)
        usage = chunk.usage or usage
    assert text == single.choices[0].message.content
    assert usage == single.usage


def use_completions(client: OpenAI, model: str) -> None:
    options = {"model": model, "prompt": "question 1", "max_tokens": 8, "temperature": 0}
    plain = client.completions.create(**options, logprobs=2, stop=["\n\n\n"])
    assert plain.choices[0].logprobs and plain.choices[0].logprobs.tokens
    chunks = client.completions.create(**options, stop=["\n\n\n"], stream=True)
    assert "".join(chunk.choices[0].text for chunk in chunks) == plain.choices[0].text
    assert len(client.completions.create(**options | {"prompt": ["a", "b"]}).choices) == 2


def make_mistakes(client: OpenAI, file_id: str) -> None:
    """Each is a clear refusal that the client does not repeat."""
    for param, call in {
        "model": lambda: client.chat.completions.create(model="nobody", messages=MESSAGES),
        "training_file": lambda: client.fine_tuning.jobs.create(
            model=BASE_MODEL, training_file="file-none"
        ),
        "purpose": lambda: client.files.create(file=b"x", purpose="assistants"),
        "messages": lambda: client.chat.completions.create(
            model=BASE_MODEL, messages=[{"role": "user", "content": "word " * 5000}]
        ),
        "suffix": lambda: client.fine_tuning.jobs.create(
            model=BASE_MODEL, training_file=file_id, suffix="a" * 65
        ),
    }.items():
        try:
            call()
        except openai.APIStatusError as refused:
            assert refused.param == param, refused
            assert refused.response.headers["x-should-retry"] == "false"
        else:
            raise AssertionError(f"{param}: a mistake was accepted")


def clean_up(client: OpenAI, job: FineTuningJob, file_id: str) -> None:
    assert job.fine_tuned_model is not None
    assert client.models.delete(job.fine_tuned_model).deleted
    assert client.files.delete(file_id).deleted
    try:
        client.models.retrieve(job.fine_tuned_model)
    except openai.NotFoundError as refused:
        assert refused.code == "model_not_found"
    else:
        raise AssertionError("a deleted model is still there")


if __name__ == "__main__":
    main(sys.argv[1])
