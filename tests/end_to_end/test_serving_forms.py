"""A tuned model merged, quantized and measured, while the service runs."""

from typing import Any
from urllib.parse import quote

import httpx
import pytest
from openai.types.fine_tuning import FineTuningJob

from tests.end_to_end.service import Service, heldout_questions

QUESTIONS = heldout_questions(8)


@pytest.fixture
def call(service: Service) -> Any:
    """`call(method, model, suffix, …)`: one of our routes of a model."""

    def call(method: str, model: str, suffix: str, **options: Any) -> dict[str, Any]:
        url = f"{service.url}/v1/models/{quote(model, safe='')}/{suffix}"
        answer = httpx.request(method, url, timeout=300, trust_env=False, **options)
        assert answer.status_code == 200, answer.text
        body: dict[str, Any] = answer.json()
        return body

    return call


def answers(service: Service, model: str) -> list[str | None]:
    return [
        service.client.chat.completions.create(
            model=model, messages=question, max_tokens=12, temperature=0
        )
        .choices[0]
        .message.content
        for question in QUESTIONS
    ]


def test_merged_weights_say_what_the_adapter_says(
    service: Service, tuned: FineTuningJob, call: Any
) -> None:
    model = str(tuned.fine_tuned_model)
    as_adapter = answers(service, model)
    try:
        for quantization in (None, "int8", "nf4"):
            form = {"form": "merged", "quantization": quantization}
            assert call("POST", model, "serving", json=form)["serving"] == form
            merged = answers(service, model)
            alike = sum(a == b for a, b in zip(merged, as_adapter, strict=True))
            # rounding may turn a choice at a near tie; four bits round much
            assert all(merged) and alike >= {None: 7, "int8": 4, "nf4": 0}[quantization]
    finally:
        call("POST", model, "serving", json={"form": "adapter"})
    assert answers(service, model) == as_adapter


def test_speed_of_base_and_tuned_model_is_measured_and_kept(
    service: Service, tuned: FineTuningJob, call: Any
) -> None:
    for model in ("tunesmith/tiny", str(tuned.fine_tuned_model)):
        measured = call("GET", model, "speed")
        assert [level["requests"] for level in measured["levels"]] == [1, 8, 32]
        assert all(level["tokens_per_second"] > 0 for level in measured["levels"])
        assert "fp32" in measured["hardware"] or "bf16" in measured["hardware"]
        assert call("GET", model, "speed") == measured
