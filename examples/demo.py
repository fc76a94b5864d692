"""A demo of Tunesmith in a minute or two: tune a base on real text and compare.

Run it with `make demo`, or with `make demo BASE=smollm2` on a real model, which takes longer. It
starts the service in a separate data folder, uses it through the `openai` client, and stops it
again.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import plotext
from openai import HttpxBinaryResponseContent, OpenAI
from openai.types.fine_tuning import FineTuningJob, SupervisedHyperparametersParam
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from examples.real_bases import CATALOG, FOLDER

DATASET = Path(__file__).parent / "python_docs"
CATALOG_SETTING = "TUNESMITH_CATALOG_FILE"
SHOWN_ROWS = 8

console = Console(width=100)


@dataclass(frozen=True)
class DemoBase:
    """A base, and the numbers of rows of each part of the dataset that it can process in time."""

    model: str
    hyperparameters: SupervisedHyperparametersParam
    learning_rate: float
    evaluate_every: int | None = None
    """Steps between two evaluations; None: an epoch."""
    training_rows: int | None = None
    validation_rows: int | None = None
    questions: int | None = None
    catalog_file: Path | None = None


BASES = {
    "tiny": DemoBase("tunesmith/tiny", {"n_epochs": 2, "batch_size": 16}, 3e-3),
    "smollm2": DemoBase(
        "HuggingFaceTB/SmolLM2-135M-Instruct",
        {"n_epochs": 1, "batch_size": 8},
        1e-3,
        evaluate_every=8,
        training_rows=256,
        validation_rows=32,
        questions=64,
        catalog_file=FOLDER.resolve() / CATALOG,
    ),
}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--base", choices=BASES, default="tiny")
    arguments.add_argument("--data-dir", type=Path, help="default: .data/demo, or .data/demo-BASE")
    options = arguments.parse_args()
    base = BASES[options.base]
    folder = "demo" if options.base == "tiny" else f"demo-{options.base}"
    data_folder = (options.data_dir or Path(".data") / folder).resolve()

    step("Starting the service")
    with service(data_folder, base) as client:
        step("Uploading the dataset: docstrings of Python's library, and the module of each")
        training = upload(client, "train.jsonl", base.training_rows)
        validation = upload(client, "validation.jsonl", base.validation_rows)

        step(f"Training a LoRA adapter on {base.model}")
        job = client.fine_tuning.jobs.create(
            model=base.model,
            training_file=training,
            validation_file=validation,
            suffix="demo",
            seed=42,
            method={"type": "supervised", "supervised": {"hyperparameters": base.hyperparameters}},
            extra_body={
                "strategy": {"type": "lora", "rank": 16},
                "training": {"learning_rate": base.learning_rate},
                "evaluation": {"every_steps": base.evaluate_every},
            },
        )
        job = follow(client, job)
        draw_loss_curve(client, job)
        show_verdict(client, job)

        step("Asking base and tuned model the same held-out questions")
        assert job.fine_tuned_model is not None
        compare(client, base, job.fine_tuned_model)

        archive = data_folder / "adapter.zip"
        download_adapter(client, job, archive)
    step("Done; the service has stopped")
    console.print(f"  Adapter (PEFT layout): {archive}")
    console.print("  Start the service again and call the tuned model:\n")
    settings = f"{CATALOG_SETTING}={base.catalog_file} " if base.catalog_file else ""
    up = f"{settings}.venv/bin/tunesmith up --data-dir {data_folder}"
    console.print(f"    {up}\n", soft_wrap=True)
    console.print(
        f"    OpenAI(base_url='http://127.0.0.1:8000/v1', api_key='none').chat.completions"
        f".create(\n        model='{job.fine_tuned_model}', messages=[…])",
        soft_wrap=True,
        highlight=False,
    )


def step(title: str) -> None:
    console.print(f"\n[bold]{title}[/bold]")


@contextmanager
def service(data_folder: Path, base: DemoBase) -> Iterator[OpenAI]:
    """Run `tunesmith up` for the length of the block and yield a client of it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "cli.main", "up"]
    catalog = {CATALOG_SETTING: str(base.catalog_file)} if base.catalog_file else {}
    process = subprocess.Popen(
        [*command, "--data-dir", str(data_folder), "--port", str(port)],
        env=os.environ | catalog,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        ready = process.stdout.readline().strip()
        if not ready:
            raise SystemExit(f"The service did not start; see the logs in {data_folder / 'logs'}.")
        console.print(f"  {ready}", soft_wrap=True)
        yield OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0)
    finally:
        process.terminate()
        process.wait(timeout=60)


def upload(client: OpenAI, name: str, rows: int | None) -> str:
    """Upload the first rows of a part of the dataset, or all of them."""
    lines = (DATASET / name).read_bytes().splitlines(keepends=True)[:rows]
    file = client.files.create(file=(name, b"".join(lines)), purpose="fine-tune")
    console.print(f"  {name}: {len(lines):,} rows, {file.bytes:,} bytes as {file.id}")
    return file.id


def follow(client: OpenAI, job: FineTuningJob) -> FineTuningJob:
    """Show a progress bar until the job ends; exit if it fails."""
    columns = (
        TextColumn("  {task.description}"),
        BarColumn(bar_width=40),
        TextColumn("step {task.fields[steps]}"),
        TextColumn("loss {task.fields[loss]}"),
        TimeRemainingColumn(),
    )
    started = time.monotonic()
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task(job.status, total=None, steps="-", loss="-")
        while job.status not in ("succeeded", "failed", "cancelled"):
            time.sleep(0.5)
            job = client.fine_tuning.jobs.retrieve(job.id)
            progress.update(bar, description=f"{job.status:16}")
            newest = client.fine_tuning.jobs.list_events(job.id, limit=20).data
            metrics = next((e.data for e in newest if e.type == "metrics"), None)
            if isinstance(metrics, dict) and "train_loss" in metrics:
                progress.update(
                    bar,
                    total=metrics["total_steps"],
                    completed=metrics["step"],
                    steps=f"{metrics['step']}/{metrics['total_steps']}",
                    loss=f"{metrics['train_loss']:.3f}",
                )
    if job.status != "succeeded":
        raise SystemExit(f"The job {job.status}: {job.error}")
    seconds = time.monotonic() - started
    console.print(f"  {job.trained_tokens:,} tokens in {seconds:.0f} s: {job.fine_tuned_model}")
    return job


def draw_loss_curve(client: OpenAI, job: FineTuningJob) -> None:
    assert job.result_files
    lines = client.files.content(job.result_files[0]).text.splitlines()
    names = lines[0].split(",")
    rows = [dict(zip(names, line.split(","), strict=True)) for line in lines[1:]]
    figure = plotext.figure
    figure.clear()
    figure.theme("colorless")
    figure.plot_size(90, 16)
    for column, label in (("train_loss", "training loss"), ("valid_loss", "validation loss")):
        points = [(int(row["step"]), float(row[column])) for row in rows if row[column]]
        if points:
            signal = figure.signal(*zip(*points, strict=True))
            signal.lines()
            signal.label(label)
            figure.draw(signal)
    figure.label("step")
    print(figure.build())


def show_verdict(client: OpenAI, job: FineTuningJob) -> None:
    """Print the job's own comparison with its base; OpenAI's API has no such route."""
    verdict: Any = client.get(f"/fine_tuning/jobs/{job.id}/evaluation", cast_to=object)
    table = Table(title=f"  Verdict: {verdict['status']}", title_justify="left")
    for name in ("held-out rows", "base", "tuned", "difference", "95 % interval"):
        table.add_column(name)
    for metric in verdict["metrics"]:
        interval = metric["interval"] and "{:+.2f} to {:+.2f}".format(*metric["interval"])
        figures = [f"{metric[name]:.2f}" for name in ("base", "tuned")]
        table.add_row(metric["name"], *figures, f"{metric['difference']:+.2f}", interval or "")
    held_out = verdict["held_out"]
    if held_out["base"] and held_out["tuned"]:
        losses = [held_out[name]["loss"] for name in ("base", "tuned")]
        change = f"{losses[1] - losses[0]:+.2f}"
        table.add_row("loss", *(f"{loss:.2f}" for loss in losses), change, "")
    console.print(table)
    console.print(f"  {verdict['overfitting']['reason']}")


def compare(client: OpenAI, base: DemoBase, tuned_model: str) -> None:
    """Ask both models the same held-out questions; print some answers and all scores."""
    lines = (DATASET / "heldout.jsonl").read_text().splitlines()[: base.questions]
    rows = [json.loads(line) for line in lines]
    questions = [row["messages"][:-1] for row in rows]
    wanted = [row["messages"][-1]["content"] for row in rows]
    base_answers = ask_all(client, base.model, questions)
    tuned_answers = ask_all(client, tuned_model, questions)

    table = Table(show_lines=False)
    widths = {"held-out question (start)": 38, "right answer": 12, "base": 24, "tuned": 13}
    for name, width in widths.items():
        table.add_column(name, width=width, overflow="ellipsis", no_wrap=True)
    for index in range(SHOWN_ROWS):
        question = " ".join(questions[index][-1]["content"].split())[:40]
        answers = (" ".join(each[index].split()) for each in (base_answers, tuned_answers))
        table.add_row(question, wanted[index], *answers)
    console.print(table)

    majority = Counter(wanted).most_common(1)[0]
    scores = {
        "base": score(base_answers, wanted),
        f"always {majority[0]!r}": majority[1] / len(wanted),
        "tuned": score(tuned_answers, wanted),
    }
    for name, share in scores.items():
        console.print(f"  {name:24} {share:6.1%} of {len(wanted)} held-out questions correct")
    if scores["tuned"] <= max(share for name, share in scores.items() if name != "tuned"):
        raise SystemExit("The tuned model is not better than its base; the training failed.")


def ask_all(client: OpenAI, model: str, questions: list[list[dict[str, str]]]) -> list[str]:
    def ask(messages: list[dict[str, str]]) -> str:
        answer = client.chat.completions.create(
            model=model,
            messages=messages,  # type: ignore[arg-type]  # rows of the dataset
            max_tokens=12,
            temperature=0,
        )
        return (answer.choices[0].message.content or "").strip()

    with ThreadPoolExecutor(max_workers=32) as pool:
        return list(pool.map(ask, questions))


def score(answers: list[str], wanted: list[str]) -> float:
    return sum(a == w for a, w in zip(answers, wanted, strict=True)) / len(wanted)


def download_adapter(client: OpenAI, job: FineTuningJob, target: Path) -> None:
    """Download the adapter with a plain GET, because OpenAI's API has no such route."""
    path = f"/fine_tuning/jobs/{job.id}/adapter"
    client.get(path, cast_to=HttpxBinaryResponseContent).write_to_file(target)


if __name__ == "__main__":
    main()
