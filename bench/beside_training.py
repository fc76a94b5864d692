"""Live streams alone and beside a training run, through `tunesmith up`.

    python -m bench.beside_training [--rounds N] [--save]

The run is LoRA on the 27M Llama, in fp32 and with all cores while nobody asks the engine; the
streams come from the tiny base. They are measured in turns.
"""

import argparse
import itertools
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from openai import OpenAI

from bench.batches import Latency, stream_latency
from bench.cases import CASES
from bench.data import build
from bench.ours import job_spec
from bench.processes import catalog_of, service
from bench.results import save_table, set_up, table

ROWS = 64
SEED = 20261123
BASE_ID = "benchmark"
STREAMS = 6
POLL_SECONDS = 0.2


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = build(folder, ROWS, SEED)
        training = job_spec(data, CASES["lora"].strategy, "fp32", 8, SEED).training
        catalog = catalog_of(folder, BASE_ID, data.base_folder)
        found: list[Latency] = []
        with service(folder / "service", TUNESMITH_CATALOG_FILE=catalog) as port:
            client = OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none")
            with data.train_file.open("rb") as content:
                file = client.files.create(file=content, purpose="fine-tune")
            stream_latency("to warm up", port, 1)
            for _ in range(options.rounds):
                found.append(stream_latency("nothing", port, STREAMS))
                job = client.fine_tuning.jobs.create(
                    model=BASE_ID,
                    training_file=file.id,
                    extra_body={
                        "strategy": CASES["lora"].strategy.model_dump(mode="json"),
                        "training": {
                            **training.model_dump(mode="json", exclude_unset=True),
                            "epochs": 50,
                        },
                    },
                )
                _until_it_trains(client, job.id)
                found.append(stream_latency("a training run", port, STREAMS))
                if client.fine_tuning.jobs.retrieve(job.id).status != "running":
                    raise SystemExit("The run ended before the streams.")
                client.fine_tuning.jobs.cancel(job.id)
                while client.fine_tuning.jobs.retrieve(job.id).status != "cancelled":
                    time.sleep(POLL_SECONDS)
    report = "\n".join(
        [
            *set_up("Live streams beside a training run"),
            *table("Milliseconds; a gap is the time between two tokens", found),
            "",
        ]
    )
    print(report)
    if options.save:
        print("Saved:", *save_table("beside-training", report, [asdict(each) for each in found]))


def _until_it_trains(client: OpenAI, job_id: str) -> None:
    while True:
        events = client.fine_tuning.jobs.list_events(job_id, limit=20)
        if any(event.type == "metrics" for event in itertools.islice(events, 20)):
            return
        time.sleep(POLL_SECONDS)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--save", action="store_true", help="write the table into bench/results")
    return parser.parse_args()


if __name__ == "__main__":
    main()
