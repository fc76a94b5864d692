"""How soon a mask preview answers while a job trains on the same cores: `python -m bench.previews`.

It runs the whole service, a job on the shipped base that trains all the time, and asks for one
mask after the other as a user would: create it, then ask until it is there.
"""

import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import httpx

from bench.processes import service

DATASET = Path(__file__).parents[1] / "examples" / "python_docs" / "train.jsonl"
BASE = "tunesmith/tiny"
PREVIEWS = 40
POLL_SECONDS = 0.02
ENDLESS_EPOCHS = 50
LIMIT_SECONDS = 2.0


def main() -> None:
    for name, figure, limit in mask_previews():
        print(f"{name:52} {figure:>10} (limit {limit})")


def mask_previews() -> list[tuple[str, str, str]]:
    """Measure previews without a job and beside one that trains; raise when it did not train."""
    with (
        tempfile.TemporaryDirectory() as folder,
        service(Path(folder)) as port,
        httpx.Client(base_url=f"http://127.0.0.1:{port}/v1", timeout=120) as client,
    ):
        file_id = _upload(client)
        _preview(client, file_id)  # waits until the light worker is warm
        alone = [_preview(client, file_id) for _ in range(PREVIEWS)]
        job_id = _start_job(client, file_id)
        step = _step(client, job_id)
        beside = [_preview(client, file_id) for _ in range(PREVIEWS)]
        if _step(client, job_id) <= step:
            raise SystemExit("The job did not train beside the previews.")
        client.post(f"/fine_tuning/jobs/{job_id}/cancel")
    return [
        ("Mask preview, median, no job", f"{statistics.median(alone):.2f} s", "-"),
        ("Mask preview, median, while a job trains", f"{statistics.median(beside):.2f} s", "-"),
        ("Mask preview, p95, while a job trains", f"{_p95(beside):.2f} s", f"{LIMIT_SECONDS:g} s"),
    ]


def _upload(client: httpx.Client) -> str:
    with DATASET.open("rb") as content:
        answer = client.post("/files", data={"purpose": "fine-tune"}, files={"file": content})
    return str(answer.raise_for_status().json()["id"])


def _preview(client: httpx.Client, file_id: str) -> float:
    """Return the seconds from the request of a mask to its rows."""
    began = time.monotonic()
    body = {"model": BASE, "training_file": file_id}
    mask = client.post("/fine_tuning/masks", json=body).raise_for_status().json()
    while mask["status"] == "queued":
        time.sleep(POLL_SECONDS)
        mask = client.get(f"/fine_tuning/masks/{mask['id']}").raise_for_status().json()
    if mask["status"] != "succeeded":
        raise SystemExit(f"The mask failed: {mask['error']}")
    return time.monotonic() - began


def _start_job(client: httpx.Client, file_id: str) -> str:
    """Start a job and return its id once it trains."""
    method = {
        "type": "supervised",
        "supervised": {"hyperparameters": {"n_epochs": ENDLESS_EPOCHS}},
    }
    body = {"model": BASE, "training_file": file_id, "method": method}
    job_id = str(client.post("/fine_tuning/jobs", json=body).raise_for_status().json()["id"])
    while _step(client, job_id) == 0:
        time.sleep(0.1)
    return job_id


def _step(client: httpx.Client, job_id: str) -> int:
    job = client.get(f"/fine_tuning/jobs/{job_id}").raise_for_status().json()
    return int(job["progress"]["step"])


def _p95(seconds: Sequence[float]) -> float:
    return statistics.quantiles(seconds, n=20)[-1]


if __name__ == "__main__":
    main()
