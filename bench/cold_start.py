"""From the rows to an adapter on disk: a job of the running service beside `trl sft`.

    python -m bench.cold_start [--base FOLDER] [--rows 64] [--rounds N] [--save]

Both commands are what a user types; the time of TRL includes its imports, and that of the service
upload, job, checks, publication and download. TRL's default is bf16. On a CPU that multiplies 16
bits in scalar loops, it is stopped after four times our time, and runs in fp32, too.
"""

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx
import torch
from openai import OpenAI

from bench.processes import catalog_of, require_success, service
from bench.results import save_table, set_up, table
from core.models.precision import pick_device
from core.models.sixteen_bit_products import has_products

ROWS = Path(__file__).parents[1] / "examples" / "python_docs" / "train.jsonl"
SMOLLM2 = Path("build/real-bases/smollm2")
BASE_ID = "benchmark"
BATCH_ROWS = 8
POLL_SECONDS = 0.1
STOCK = "trl sft"
IN_FP32 = "trl sft --bf16 False"
LONGEST = 4
"""Times our seconds after which a run of TRL is stopped, and counts as if it had ended then."""


@dataclass(frozen=True)
class Waited:
    """Seconds from the command to the adapter on disk."""

    contender: str
    seconds: tuple[float, ...]
    median: float
    to_ours: float


def main() -> None:
    options = _options()
    base = options.base.resolve()
    has_bf16 = has_products(pick_device(), torch.bfloat16)
    peers = {STOCK: ()} if has_bf16 else {STOCK: (), IN_FP32: ("--bf16", "False")}
    seconds: dict[str, list[float]] = {name: [] for name in ("Tunesmith", *peers)}
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        rows = folder / "rows.jsonl"
        with ROWS.open(encoding="utf-8") as lines:
            rows.write_text("".join(itertools.islice(lines, options.rows)))
        catalog = catalog_of(folder, BASE_ID, base)
        with service(folder / "service", TUNESMITH_CATALOG_FILE=catalog) as port:
            for number in range(options.rounds):
                ours = _by_service(port, rows, folder, options.epochs)
                seconds["Tunesmith"].append(ours)
                for place, (name, settings) in enumerate(peers.items()):
                    output = folder / f"trl-{number}-{place}"
                    command = _trl_command(base, output, options.epochs, settings)
                    seconds[name].append(_by_trl(command, rows, output, LONGEST * ours))
    medians = {name: statistics.median(each) for name, each in seconds.items()}
    waited = [
        Waited(name, tuple(each), medians[name], medians[name] / medians["Tunesmith"])
        for name, each in seconds.items()
    ]
    report = "\n".join(
        [
            *set_up(f"From rows to adapter, {base.name}, {options.rows} rows"),
            *table(f"Seconds, {options.epochs} epochs of {BATCH_ROWS} rows per step", waited),
            "",
            f"A run of TRL is stopped after {LONGEST} times our seconds, and counts as that.",
            "",
        ]
    )
    print(report)
    if options.save:
        print("Saved:", *save_table("cold-start", report, [asdict(each) for each in waited]))


def _by_service(port: int, rows: Path, folder: Path, epochs: int) -> float:
    """Upload, train and download; return the seconds."""
    url = f"http://127.0.0.1:{port}/v1"
    client = OpenAI(base_url=url, api_key="none")
    began = time.monotonic()
    with rows.open("rb") as content:
        file = client.files.create(file=content, purpose="fine-tune")
    job = client.fine_tuning.jobs.create(
        model=BASE_ID,
        training_file=file.id,
        hyperparameters={"n_epochs": epochs, "batch_size": BATCH_ROWS},
        extra_body={"strategy": {"type": "lora", "rank": 16, "alpha": 32}},
    )
    require_success(client, job, POLL_SECONDS)
    archive = httpx.get(f"{url}/fine_tuning/jobs/{job.id}/adapter", timeout=60, trust_env=False)
    (folder / "adapter.zip").write_bytes(archive.raise_for_status().content)
    return time.monotonic() - began


def _trl_command(base: Path, output: Path, epochs: int, settings: Sequence[str]) -> list[str]:
    return [
        *(str(Path(sys.executable).with_name("trl")), "sft"),
        *("--model_name_or_path", str(base), "--dataset_name", str(output.with_suffix(".data"))),
        *("--use_peft", "--lora_r", "16", "--lora_alpha", "32"),
        *("--lora_target_modules", "all-linear"),
        *("--per_device_train_batch_size", str(BATCH_ROWS), "--num_train_epochs", str(epochs)),
        *("--output_dir", str(output)),
        *(() if torch.cuda.is_available() else ("--use_cpu",)),  # refused without it
        *settings,
    ]


def _by_trl(command: list[str], rows: Path, output: Path, longest: float) -> float:
    """Run the command line of TRL; return the seconds, at most `longest`."""
    data = output.with_suffix(".data")
    data.mkdir()
    with rows.open(encoding="utf-8") as lines, (data / "train.jsonl").open("w") as out:
        for line in lines:
            out.write(json.dumps({"messages": json.loads(line)["messages"]}) + "\n")
    print(" ".join(command), file=sys.stderr, flush=True)
    began = time.monotonic()
    log = output.with_suffix(".log")
    with log.open("w") as out, suppress(subprocess.TimeoutExpired):
        status = subprocess.run(
            command, check=False, stdout=out, stderr=subprocess.STDOUT, timeout=longest
        ).returncode
        seconds = time.monotonic() - began
        if status or not (output / "adapter_model.safetensors").is_file():
            raise SystemExit(f"trl sft failed:\n{log.read_text()[-3000:]}")
        return seconds
    return longest


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--base", type=Path, default=SMOLLM2, help="folder of a base")
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--save", action="store_true", help="write the table into bench/results")
    return parser.parse_args()


if __name__ == "__main__":
    main()
