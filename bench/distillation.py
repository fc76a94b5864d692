"""Does a student learn more from a teacher than from the same labelled rows alone?

The user has a large tuned model that answers well, and wants a small one. Few labelled rows are
left, and there are many prompts. SmolLM2-135M, tuned on rows that nobody else sees, is the teacher.
The shipped base, a thirtieth of its size, is trained on the labelled rows and on the teacher's
answers to the prompts. Beside it stands the same student trained on the same labelled rows alone,
for as many epochs, and, so that steps are no excuse, for as many steps. The task is to name the
module of a docstring; the score is the share of held-out docstrings whose module is named exactly.
Everything runs through the service, with every hyperparameter on `auto`, but for the teacher's: one
epoch, in bf16. Its job is kept, so a second run does not train it again.

    make bench-distillation                        # three seeds
    python -m bench.distillation --seeds 1 --labelled 32
    python -m bench.distillation --table --save    # the table of what has been measured
"""

import argparse
import json
import random
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

from bench.auto_data import READERS, JsonRow
from bench.processes import require_success, service
from bench.results import save_table, set_up, table

TEACHER, STUDENT = "smollm2", "tunesmith/tiny"
CATALOG = Path("build") / "real-bases" / "catalog.toml"
FOLDER = Path("build") / "distillation"
RESULTS = FOLDER / "outcomes.jsonl"
"""Of each setting and seed; none is measured twice."""
DATASET = "module of a docstring"
ANSWER_TOKENS = 16
POLL_SECONDS = 0.5
ROUTE = "/fine_tuning/distillations"
COMPARISONS = "/fine_tuning/comparisons"


@dataclass(frozen=True)
class Setting:
    """Numbers of rows: the teacher's, those with labels, prompts without, and held-out ones."""

    taught: int
    labelled: int
    prompts: int
    held_out: int


@dataclass(frozen=True)
class Rows:
    """The rows of one seed. The teacher's are the same for all seeds; no row is in two lists."""

    taught: list[JsonRow]
    labelled: list[JsonRow]
    prompts: list[JsonRow]
    held_out: list[JsonRow]


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

    def train(self, model: str, file_id: str, seed: int, **more: Any) -> dict[str, Any]:
        """Return the job of a model that was trained on a file."""
        job = self._client.fine_tuning.jobs.create(
            model=model, training_file=file_id, seed=seed, **more
        )
        require_success(self._client, job, POLL_SECONDS)
        return self.job(job.id)

    def job(self, job_id: str) -> dict[str, Any]:
        return self._client.fine_tuning.jobs.retrieve(job_id).to_dict()

    def teacher(self, taught: Sequence[JsonRow]) -> str:
        """Return the model that was trained on these rows, by this run or an earlier one."""
        marks = {"benchmark": "distillation", "rows": str(len(taught))}
        query = {f"metadata[{key}]": value for key, value in marks.items()}
        for job in self._client.fine_tuning.jobs.list(extra_query=query):
            if job.status == "succeeded" and job.fine_tuned_model is not None:
                return job.fine_tuned_model
        training = {"training": {"epochs": 1, "precision": "bf16"}}
        made = self.train(TEACHER, self.upload(taught), 0, metadata=marks, extra_body=training)
        return str(made["fine_tuned_model"])

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


def drawn(setting: Setting, seed: int) -> Rows:
    """Return the rows of a seed, drawn from all that the teacher has not seen."""
    rows = list({json.dumps(row): row for row in READERS[DATASET](Path())}.values())
    random.Random(0).shuffle(rows)
    taught, pool = rows[: setting.taught], rows[setting.taught :]
    random.Random(seed).shuffle(pool)
    labelled, prompts = setting.labelled, setting.labelled + setting.prompts
    held_out = prompts + setting.held_out
    return Rows(taught, pool[:labelled], pool[labelled:prompts], pool[prompts:held_out])


def measured(at: Service, setting: Setting, seed: int) -> Outcome:
    """Train students on the rows of a seed, and score them and the teacher."""
    rows = drawn(setting, seed)
    teacher = at.teacher(rows.taught)
    labelled_file = at.upload(rows.labelled)
    alone = at.train(STUDENT, labelled_file, seed)
    began = time.monotonic()
    found = at.distil(_body(at, rows, teacher, labelled_file, seed))
    seconds = time.monotonic() - began
    distilled = at.job(found["job_id"])
    steps = distilled["progress"]["total_steps"]
    as_many = {"training": {"max_steps": steps}}
    longer = at.train(STUDENT, labelled_file, seed, extra_body=as_many)
    students = [job["fine_tuned_model"] for job in (alone, longer, distilled)]
    scores = at.exact([teacher, *students], at.upload(rows.held_out), setting.held_out)
    return Outcome(
        seed=seed,
        teacher=scores[0],
        student_alone=scores[1],
        student_alone_as_many_steps=scores[2],
        student_distilled=scores[3],
        rows_kept=found["filtering"]["rows"],
        steps_alone=alone["progress"]["total_steps"],
        steps_distilled=steps,
        distillation_seconds=seconds,
    )


def _body(at: Service, rows: Rows, teacher: str, labelled_file: str, seed: int) -> dict[str, Any]:
    """Return the request of a distillation; its prompts have no labels."""
    items = [{"item": {"messages": row["messages"][:-1]}} for row in rows.prompts]
    known = sorted({row["messages"][-1]["content"] for row in rows.labelled})
    source = f"def grade(sample, item):\n    return float(sample['output_text'] in {known!r})\n"
    grader = {"type": "python", "name": "is a module of a labelled row", "source": source}
    return {
        "prompts": {"type": "file_id", "id": at.upload(items, "evals")},
        "teacher": teacher,
        "sampling": {"temperature": 0, "max_completion_tokens": ANSWER_TOKENS},
        "filter": {"graders": [grader]},
        "labelled_file": labelled_file,
        "max_failed_share": 0.2,
        "job": {"model": STUDENT, "seed": seed},
    }


@contextmanager
def running() -> Iterator[Service]:
    data = FOLDER / "data"
    data.mkdir(parents=True, exist_ok=True)
    with service(data, TUNESMITH_CATALOG_FILE=str(CATALOG.absolute())) as port:
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
    with running() as at:
        for seed in seeds:
            outcome = measured(at, setting, seed)
            print(outcome, flush=True)
            line = {"setting": asdict(setting), "outcome": asdict(outcome)}
            with RESULTS.open("a", encoding="utf-8") as out:
                out.write(json.dumps(line) + "\n")


def _report(setting: Setting, outcomes: Sequence[Outcome]) -> str:
    names = ("teacher", "student_alone", "student_alone_as_many_steps", "student_distilled")
    lines = [
        *set_up("A student of a teacher beside one of the same labelled rows alone"),
        "",
        f"{setting.labelled} labelled rows, {setting.prompts} prompts, {setting.held_out} held-out "
        f"rows; the teacher is SmolLM2-135M, tuned on {setting.taught} other rows.",
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
    options.add_argument("--taught", type=int, default=400)
    options.add_argument("--labelled", type=int, default=64)
    options.add_argument("--prompts", type=int, default=300)
    options.add_argument("--held-out", type=int, default=200)
    options.add_argument("--table", action="store_true", help="measure nothing")
    options.add_argument("--save", action="store_true")
    asked = options.parse_args()
    setting = Setting(asked.taught, asked.labelled, asked.prompts, asked.held_out)
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
