"""Does a student learn more from a teacher than from the same labelled rows alone?

The user has few labelled rows and many prompts without labels. SmolLM2-135M is tuned on the
labelled rows, answers the prompts, and the shipped base (the student, a thirtieth of its size) is
trained on both; beside it stands the student that was trained on the labelled rows alone, for as
many epochs and, so that steps are no excuse, for as many steps. No model sees other labels than
those of the same rows. The task is to name the module of a docstring; the score is the share of
held-out docstrings whose module is named exactly. Everything runs through the service, with every
hyperparameter on `auto`; the teacher is trained in bf16, which saves time.

    make bench-distillation            # three seeds
    python -m bench.distillation --seeds 1 --labelled 32
    python -m bench.distillation --table --save    # the table of what has been measured
"""

import argparse
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import httpx
import torch
from openai import OpenAI

from bench.auto_data import JsonRow, take
from bench.processes import require_success, service
from bench.results import save_table, set_up, table

TEACHER, STUDENT = "smollm2", "tunesmith/tiny"
CATALOG = Path("build") / "real-bases" / "catalog.toml"
DATASET = "module of a docstring"
ANSWER_TOKENS = 16
POLL_SECONDS = 0.5
ROUTE = "/fine_tuning/distillations"
COMPARISONS = "/fine_tuning/comparisons"
RESULTS = Path("build") / "distillation" / "outcomes.jsonl"
"""Of each setting and seed; none is measured twice."""


@dataclass(frozen=True)
class Setting:
    """Numbers of rows: with labels, without, and those on which models are scored."""

    labelled: int
    prompts: int
    held_out: int


@dataclass(frozen=True)
class Outcome:
    """Shares of held-out docstrings whose module is named exactly."""

    seed: int
    teacher: float
    student_alone: float
    student_alone_as_many_steps: float
    student_distilled: float
    rows_kept: int
    steps_alone: int
    steps_distilled: int
    distillation_seconds: float


class Service:
    """What the benchmark asks of a running service."""

    def __init__(self, port: int) -> None:
        url = f"http://127.0.0.1:{port}/v1"
        self._client = OpenAI(base_url=url, api_key="none")
        self._http = httpx.Client(base_url=url, trust_env=False, timeout=60)

    def upload(self, rows: Sequence[JsonRow], purpose: Any = "fine-tune") -> str:
        content = "".join(json.dumps(row) + "\n" for row in rows).encode()
        return self._client.files.create(file=("rows.jsonl", content), purpose=purpose).id

    def train(self, model: str, file_id: str, seed: int, **training: Any) -> dict[str, Any]:
        """Return the job of a model that was trained on a file."""
        job = self._client.fine_tuning.jobs.create(
            model=model, training_file=file_id, seed=seed, extra_body={"training": training}
        )
        require_success(self._client, job, POLL_SECONDS)
        return self._client.fine_tuning.jobs.retrieve(job.id).to_dict()

    def job(self, job_id: str) -> dict[str, Any]:
        return self._client.fine_tuning.jobs.retrieve(job_id).to_dict()

    def distil(self, body: dict[str, Any]) -> dict[str, Any]:
        """Return a distillation whose job has succeeded."""
        return self._ended(ROUTE, body)

    def exact(self, models: Sequence[str], file_id: str, rows: int) -> list[float]:
        """Return the share of exact answers of each model."""
        body = {"models": models, "file": file_id, "samples": rows, "max_tokens": ANSWER_TOKENS}
        scores = self._ended(COMPARISONS, body)["scores"]
        by_model = {each["model"]: each["scores"]["exact_match"] for each in scores}
        return [by_model[model] for model in models]

    def _ended(self, route: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = self._http.post(route, json=body)
        if not answer.is_success:
            raise SystemExit(answer.text)
        found: dict[str, Any] = answer.json()
        while found["status"] not in ("succeeded", "failed", "cancelled"):
            time.sleep(POLL_SECONDS)
            found = self._http.get(f"{route}/{found['id']}").json()
        if found["status"] != "succeeded":
            raise SystemExit(f"{found['id']} is {found['status']}: {found['error']}")
        return found


def measured(at: Service, setting: Setting, seed: int) -> Outcome:
    """Train teacher and students on rows that the seed draws, and score them."""
    wanted = setting.labelled + setting.prompts
    rows = take(DATASET, Path(), wanted, setting.held_out, seed)
    labelled, unlabelled = rows.train[: setting.labelled], rows.train[setting.labelled :]
    labelled_file, held_out_file = at.upload(labelled), at.upload(rows.held_out)
    alone = at.train(STUDENT, labelled_file, seed)
    teacher = at.train(TEACHER, labelled_file, seed, precision="bf16")
    began = time.monotonic()
    found = at.distil(
        {
            "prompts": {"type": "file_id", "id": at.upload(_items(unlabelled), "evals")},
            "teacher": teacher["fine_tuned_model"],
            "sampling": {"temperature": 0, "max_completion_tokens": ANSWER_TOKENS},
            "filter": {"graders": [_is_a_module(labelled)]},
            "labelled_file": labelled_file,
            "max_failed_share": 0.2,
            "job": {"model": STUDENT, "seed": seed},
        }
    )
    seconds = time.monotonic() - began
    distilled = at.job(found["job_id"])
    steps = distilled["progress"]["total_steps"]
    longer = at.train(STUDENT, labelled_file, seed, max_steps=steps)
    models = [each["fine_tuned_model"] for each in (teacher, alone, longer, distilled)]
    of_teacher, of_alone, of_longer, of_distilled = at.exact(
        models, held_out_file, setting.held_out
    )
    return Outcome(
        seed,
        teacher=of_teacher,
        student_alone=of_alone,
        student_alone_as_many_steps=of_longer,
        student_distilled=of_distilled,
        rows_kept=found["filtering"]["rows"],
        steps_alone=alone["progress"]["total_steps"],
        steps_distilled=steps,
        distillation_seconds=seconds,
    )


def _items(rows: Sequence[JsonRow]) -> list[JsonRow]:
    """Return prompts without their labels."""
    return [{"item": {"messages": row["messages"][:-1]}} for row in rows]


def _is_a_module(labelled: Sequence[JsonRow]) -> dict[str, Any]:
    """Return a grader that passes the answers which some labelled row has."""
    known = sorted({row["messages"][-1]["content"] for row in labelled})
    source = f"def grade(sample, item):\n    return float(sample['output_text'] in {known!r})\n"
    return {"type": "python", "name": "is a module", "source": source}


@contextmanager
def running() -> Iterator[Service]:
    with tempfile.TemporaryDirectory() as folder:
        catalog = str(CATALOG.absolute())
        with service(Path(folder), TUNESMITH_CATALOG_FILE=catalog) as port:
            yield Service(port)


def stored(setting: Setting) -> dict[int, Outcome]:
    """Return what has been measured of a setting, by seed."""
    if not RESULTS.exists():
        return {}
    lines = map(json.loads, RESULTS.read_text(encoding="utf-8").splitlines())
    found = [Outcome(**line["outcome"]) for line in lines if line["setting"] == asdict(setting)]
    return {each.seed: each for each in sorted(found, key=lambda each: each.seed)}


def measure(setting: Setting, seeds: Sequence[int]) -> None:
    """Measure the seeds through one service, and store each outcome."""
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    with running() as at:
        for seed in seeds:
            outcome = measured(at, setting, seed)
            print(outcome, flush=True)
            with RESULTS.open("a", encoding="utf-8") as out:
                line = {"setting": asdict(setting), "outcome": asdict(outcome)}
                out.write(json.dumps(line) + "\n")


def _report(setting: Setting, outcomes: Sequence[Outcome]) -> str:
    names = ("teacher", "student_alone", "student_alone_as_many_steps", "student_distilled")
    lines = [
        *set_up("A student of a teacher beside one of the same labelled rows alone"),
        "",
        f"{setting.labelled} labelled rows, {setting.prompts} prompts, {setting.held_out} held-out "
        "rows; the teacher is SmolLM2-135M, tuned on the labelled rows.",
        *table("Exact answers by seed", outcomes),
        "",
        "| model | mean | standard deviation |",
        "| --- | --- | --- |",
    ]
    for name in names:
        scores = [getattr(each, name) for each in outcomes]
        spread = f"{stdev(scores):.3f}" if len(scores) > 1 else ""
        lines.append(f"| {name} | {fmean(scores):.3f} | {spread} |")
    return "\n".join([*lines, ""])


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--labelled", type=int, default=64)
    options.add_argument("--prompts", type=int, default=300)
    options.add_argument("--held-out", type=int, default=200)
    options.add_argument("--table", action="store_true", help="measure nothing")
    options.add_argument("--save", action="store_true")
    asked = options.parse_args()
    setting = Setting(asked.labelled, asked.prompts, asked.held_out)
    known = stored(setting)
    missing = [seed for seed in range(1, asked.seeds + 1) if seed not in known]
    if missing and not asked.table:
        measure(setting, missing)
    outcomes = list(stored(setting).values())
    if not outcomes:
        raise SystemExit("Nothing has been measured yet.")
    report = _report(setting, outcomes)
    print(report)
    if asked.save:
        figures = {"setting": asdict(setting), "seeds": [asdict(each) for each in outcomes]}
        print("Saved:", *save_table("distillation", report, figures))


if __name__ == "__main__":
    torch.set_num_threads(2)
    main()
