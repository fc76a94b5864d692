"""Adapters of PEFT from upload to use: served, trained further, added, exported; or refused."""

import json
from pathlib import Path
from typing import Any

import openai
import peft
import pytest
import torch
from openai import OpenAI
from openai.types.fine_tuning import FineTuningJob
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.end_to_end.adapters import TINY, adapter, zipped
from tests.end_to_end.making import exported, made, send
from tests.end_to_end.service import (
    BASE_MODEL,
    Service,
    download_adapter,
    heldout_questions,
    upload,
    wait_until,
)


def by_peft(folder: Path, messages: list[dict[str, str]]) -> float:
    """Return the log-probability of the likeliest first token of an answer, by PEFT in fp32."""
    model = AutoModelForCausalLM.from_pretrained(TINY, dtype=torch.float32)
    return _likeliest(peft.PeftModel.from_pretrained(model, folder), messages)


def by_transformers(folder: Path, messages: list[dict[str, str]]) -> float:
    return _likeliest(AutoModelForCausalLM.from_pretrained(folder, dtype="auto"), messages)


def _likeliest(model: Any, messages: list[dict[str, str]]) -> float:
    tokenizer = AutoTokenizer.from_pretrained(TINY)
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    encoded = tokenizer(prompt, return_tensors="pt", return_token_type_ids=False)
    with torch.no_grad():
        return float(model.eval()(**encoded).logits[0, -1].log_softmax(-1).max())


def likeliest(client: OpenAI, model: str, messages: Any) -> float:
    """Return the same by the service, whatever number format the engine has."""
    found = client.chat.completions.create(
        model=model, messages=messages, temperature=0, max_tokens=1, logprobs=True
    )
    logprobs = found.choices[0].logprobs
    assert logprobs is not None and logprobs.content
    return logprobs.content[0].logprob


def answer(client: OpenAI, model: str, messages: Any, tokens: int) -> str:
    found = client.chat.completions.create(
        model=model, messages=messages, temperature=0, max_tokens=tokens
    )
    return found.choices[0].message.content or ""


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("adapters")
    return [adapter(folder / str(seed), seed) for seed in (1, 2)]


@pytest.fixture(scope="module")
def imported(service: Service, saved: list[Path]) -> list[dict[str, Any]]:
    """One from an archive, one from the files of its folder."""
    client = service.client
    archive = send(client, zipped(saved[0]))
    files = [send(client, path) for path in saved[1].glob("adapter_*")]
    bodies: list[dict[str, Any]] = [{"file": archive, "suffix": "mine"}, {"files": files}]
    return [made(client, "/models/import", {"model": BASE_MODEL, **body}) for body in bodies]


def test_imported_model_answers_as_peft_does(
    service: Service, saved: list[Path], imported: list[dict[str, Any]]
) -> None:
    client = service.client
    for folder, each in zip(saved, imported, strict=True):
        assert each["status"] == "succeeded", each["error"]
        assert each["parity"]["status"] == "passed", each["parity"]
        assert client.models.retrieve(each["model"]).id == each["model"]
        asked = heldout_questions(4)
        expected = [by_peft(folder, messages) for messages in asked]
        ours = [likeliest(client, each["model"], messages) for messages in asked]
        base = [likeliest(client, BASE_MODEL, messages) for messages in asked]
        assert ours == pytest.approx(expected, abs=0.05)
        assert base != pytest.approx(expected, abs=0.2)
    assert imported[0]["model"].startswith("ft:tiny:default:mine:")


def test_imported_model_is_trained_further_and_taken_away(
    service: Service, small_dataset: Path, imported: list[dict[str, Any]], tmp_path: Path
) -> None:
    client = service.client
    created = client.fine_tuning.jobs.create(
        model=imported[0]["model"],
        training_file=upload(client, small_dataset),
        hyperparameters={"n_epochs": 1, "batch_size": 16},
    )
    job = wait_until(client, created.id, "succeeded")
    assert job.fine_tuned_model is not None
    assert client.models.retrieve(job.fine_tuned_model).to_dict()["parity"]["status"] == "passed"
    folder = download_adapter(client, job.id, tmp_path)
    assert json.loads((folder / "adapter_config.json").read_text())["r"] == 4
    assert client.fine_tuning.jobs.checkpoints.list(job.id).data


def test_imported_models_are_compared_and_deleted_as_others(
    service: Service, small_dataset: Path, imported: list[dict[str, Any]]
) -> None:
    client = service.client
    body = {
        "models": [BASE_MODEL, imported[0]["model"]],
        "file": upload(client, small_dataset),
        "samples": 4,
        "max_tokens": 8,
    }
    found = made(client, "/fine_tuning/comparisons", body)
    assert found["status"] == "succeeded" and found["completed"] == 4
    served = client.post(
        f"/models/{imported[1]['model']}/serving", body={"form": "merged"}, cast_to=object
    )
    assert served["serving"]["form"] == "merged"  # type: ignore[index]


def test_imported_model_is_exported(
    service: Service, imported: list[dict[str, Any]], saved: list[Path], tmp_path: Path
) -> None:
    """What comes out, by transformers, says what went in, by PEFT."""
    client = service.client
    found = exported(client, imported[0]["model"], tmp_path, format="merged", precision="fp32")
    assert found["replay"]["status"] == "passed", found["replay"]
    assert found["replay"]["distance"]["of_parity_check"]
    for messages in heldout_questions(2):
        expected = by_peft(saved[0], messages)
        assert by_transformers(tmp_path, messages) == pytest.approx(expected, abs=1e-3)


def test_soup_of_an_imported_and_a_trained_model(
    service: Service, imported: list[dict[str, Any]], tuned: FineTuningJob, tmp_path: Path
) -> None:
    client = service.client
    body = {"models": [imported[0]["model"], tuned.fine_tuned_model], "weights": [0.5, 0.8]}
    soup = made(client, "/models/soups", body)
    assert soup["status"] == "succeeded", soup["error"]
    assert soup["parity"]["status"] == "passed", soup["parity"]
    assert soup["strategy"]["rank"] == 4 + 16
    assert answer(client, soup["model"], heldout_questions(1)[0], 8)
    found = exported(client, soup["model"], tmp_path, format="huggingface", form="adapter")
    assert found["replay"]["status"] == "passed", found["replay"]
    messages = heldout_questions(1)[0]
    assert likeliest(client, soup["model"], messages) == pytest.approx(
        by_peft(tmp_path, messages), abs=0.05
    )
    assert client.models.delete(soup["model"]).deleted
    with pytest.raises(openai.NotFoundError):
        answer(client, soup["model"], heldout_questions(1)[0], 8)


def test_adapter_of_another_base_fails_with_the_reason(service: Service, tmp_path: Path) -> None:
    client = service.client
    folder = adapter(tmp_path / "saved", 3)
    weights = folder / "adapter_model.safetensors"
    tensors = load_file(weights)
    name = next(name for name in tensors if "lora_A" in name)
    save_file({**tensors, name: torch.ones(4, 999)}, weights)
    found = made(
        client, "/models/import", {"model": BASE_MODEL, "file": send(client, zipped(folder))}
    )
    assert found["status"] == "failed" and found["error"]["code"] == "adapter_refused"
    assert "another base" in found["error"]["message"] and found["model"] is None
