"""MiniLM learns to classify, and its endpoint says what plain transformers and PEFT say."""

from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.end_to_end.bundles import Bundle
from tests.end_to_end.service import Service, download_adapter, upload, wait_until
from tests.real import rows

STRATEGIES: dict[str, tuple[dict[str, Any], float]] = {
    "lora": ({"type": "lora", "rank": 16}, 2e-3),
    "full": ({"type": "full"}, 1e-4),
    "ia3": ({"type": "ia3"}, 1e-2),
}

pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


@pytest.mark.parametrize("name", STRATEGIES)
def test_classifier_learns_and_scores_as_its_bundle_does(
    service: Service, minilm: Path, name: str, tmp_path: Path
) -> None:
    client = service.client
    rows.write_labelled(tmp_path / "labels.csv", "train")
    strategy, rate = STRATEGIES[name]
    job = client.fine_tuning.jobs.create(
        model="minilm",
        training_file=upload(client, tmp_path / "labels.csv"),
        seed=5,
        extra_body={
            "strategy": strategy,
            "training": {"epochs": 2, "batch_size": 16, "learning_rate": rate, "precision": "fp32"},
        },
    )
    job = wait_until(client, job.id, "succeeded", silence_seconds=800)
    assert job.fine_tuned_model
    parity = client.models.retrieve(job.fine_tuned_model).model_dump()["parity"]
    assert parity["status"] == "passed", parity

    heldout = rows.labelled("heldout")
    results = classify(service, job.fine_tuned_model, [text for text, _ in heldout])
    right = sum(
        max(scores, key=scores.__getitem__) == label
        for scores, (_, label) in zip(results, heldout, strict=True)
    )
    assert right / len(heldout) > 0.8 > rows.share_of_the_most_frequent(heldout) + 0.2
    bundle = Bundle(download_adapter(client, job.id, tmp_path / "bundle"), minilm, job)
    for (text, _), scores in list(zip(heldout, results, strict=True))[:16]:
        assert scores == pytest.approx(bundle.scores(text), abs=1e-4)


def classify(service: Service, model: str, texts: list[str]) -> list[dict[str, float]]:
    answer = httpx.post(
        f"{service.url}/v1/classifications", json={"model": model, "input": texts}, timeout=120
    )
    assert answer.status_code == 200, answer.text
    return [result["label"]["scores"] for result in answer.json()["results"]]
