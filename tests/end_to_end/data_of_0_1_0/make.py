"""Writes the data folder of a service, with what users and accidents leave in it, and packs it.

    python make.py CHECKOUT FOLDER

runs the service of another checkout on FOLDER/data, and writes FOLDER/data.tar.xz and
FOLDER/answers.json. README.md says which checkout wrote the files beside this one. It talks to an
older service, so it uses nothing of this project: only `openai`, `psutil` and the standard library.
"""

import hashlib
import json
import lzma
import os
import socket
import sqlite3
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
from openai import OpenAI

BASE = "tunesmith/tiny"
SETTINGS = {
    "TUNESMITH_THREADS": "1",
    "TUNESMITH_ENGINE_THREADS": "1",
    "TUNESMITH_CHECK_SECONDS": "0.1",
}
PACKED = ("tunesmith.db", "tunesmith.db-wal", "broker", "precision", "storage", "work")
"""Not the logs, which name the machine, nor the engine's cache, which copies the bundles."""

ANIMALS = ("ant", "bee", "cat", "cow", "dog", "fox", "hen", "owl")
QUESTION = [{"role": "user", "content": "What is an owl?"}]

STEPS = 20
"""Of a run that is stopped in the middle; it evaluates after the first half."""

Body = dict[str, Any]


def lora(**options: Any) -> Body:
    return {"type": "lora", "rank": 1, "alpha": 2, "target_modules": ["q_proj"], **options}


def training(max_steps: int = 2, **options: Any) -> Body:
    own = {"max_steps": max_steps, "batch_size": 4, "precision": "fp32"}
    return {**own, "learning_rate": 0.05, "warmup_ratio": 0.0, **options}


JOBS: dict[str, Body] = {
    "whole": {
        "file": "chat.jsonl",
        "suffix": "pets",
        "metadata": {"team": "red"},
        "strategy": lora(rank=2, dropout=0.1),
        "training": training(STEPS, learning_rate=0.003, optimiser="adamw"),
        "evaluation": {"split": 0.1, "every_steps": STEPS // 2},
    },
    "dpo": {
        "file": "preferences.jsonl",
        "strategy": lora(),
        "method": {"type": "dpo", "dpo": {"hyperparameters": {"beta": 0.2}}},
    },
    "labels": {"file": "labels.csv", "strategy": lora()},
    "qlora": {
        "file": "instructions.jsonl",
        "strategy": lora(type="qlora", quantisation="nf4", double_quantisation=True),
        "training": training(optimiser="paged_adamw"),
    },
    "failed": {"file": "chat.jsonl", "strategy": lora(), "training": training(max_length=8)},
}
"""What is run to its end; `whole` is what the interrupted runs must lead to."""


def main() -> None:
    checkout, folder = (Path(name).resolve() for name in sys.argv[1:])
    data = folder / "data"
    with running(checkout, data) as service:
        service.upload()
        for name in JOBS:
            service.finish(name)
        service.stop_some()
        answers = service.look_at_models()
        service.begin("killed")  # stopped with the service, which saves its state
    with running(checkout, data, names=service.names, kill=True) as service:
        service.leave_work()
        answers |= {"names": service.names, "objects": service.objects()}
    answers["saved_steps"] = saved_steps(data, service.names)
    pack(data, folder / "data.tar.xz")
    text = json.dumps(answers, indent=1, sort_keys=True, ensure_ascii=False)
    (folder / "answers.json").write_text(text + "\n", encoding="utf-8")


def wait_for(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 300
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.1)


class Service:
    """The moves of a user; `names` has the ids of what was made, by the name in this file."""

    def __init__(self, url: str, names: dict[str, str]) -> None:
        self.client = OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
        self.http = httpx.Client(base_url=f"{url}/v1", trust_env=False, timeout=300)
        self.names = names

    def upload(self) -> None:
        for name, content in files().items():
            file = self.client.files.create(file=(name, content.encode()), purpose="fine-tune")
            self.names[name] = file.id

    def create(self, name: str, body: Body, model: str = BASE) -> None:
        own = {"strategy", "training", "evaluation"}
        job = self.client.fine_tuning.jobs.create(
            model=model,
            training_file=self.names[body["file"]],
            seed=5,
            **{key: value for key, value in body.items() if key not in own | {"file"}},
            extra_body={"training": training()}
            | {key: value for key, value in body.items() if key in own},
        )
        self.names[name] = job.id

    def job(self, name: str) -> Body:
        return self.get(f"/fine_tuning/jobs/{self.names[name]}")

    def step_of(self, name: str) -> int:
        step: int = self.job(name)["progress"]["step"]
        return step

    def get(self, path: str) -> Body:
        found: Body = self.http.get(path).raise_for_status().json()
        return found

    def post(self, path: str, body: Body | None = None) -> Body:
        found: Body = self.http.post(path, json=body).raise_for_status().json()
        return found

    def finish(self, name: str) -> None:
        """Run a job to its end."""
        self.create(name, JOBS[name])
        wait_for(lambda: self.job(name)["status"] in ("succeeded", "failed"))
        assert self.job(name)["status"] == ("failed" if name == "failed" else "succeeded"), name

    def begin(self, name: str, step: int = STEPS // 2) -> None:
        """Begin the run of `whole` once more, and leave it running."""
        self.create(name, JOBS["whole"])
        wait_for(lambda: self.step_of(name) > step)

    def stop_some(self) -> None:
        jobs = self.client.fine_tuning.jobs
        self.begin("paused")
        jobs.pause(self.names["paused"])
        wait_for(lambda: self.job("paused")["paused_at"] is not None)
        self.begin("cancelled", step=0)
        jobs.cancel(self.names["cancelled"])

    def look_at_models(self) -> Body:
        """Ask every model, as users do; return what they say."""
        merged = {"form": "merged", "quantisation": "int8"}
        self.post(f"/models/{self.model('dpo')}/serving", merged)
        whole = self.model("whole")
        self.get(f"/models/{whole}/speed")
        self.names["mask"] = self.ask_for_mask()
        wait_for(
            lambda: self.get(f"/fine_tuning/masks/{self.names['mask']}")["status"] == "succeeded"
        )
        checkpoint = f"{whole}:ckpt-step-{STEPS // 2}"
        models = [BASE, whole, checkpoint, self.model("dpo"), self.model("qlora")]
        texts = {"model": self.model("labels"), "input": list(ANIMALS)}
        return {
            "answers": {model: self.answer(model) for model in models},
            "labels": self.post("/classifications", texts)["results"],
        }

    def model(self, name: str) -> str:
        found: str = self.job(name)["fine_tuned_model"]
        return found

    def ask_for_mask(self) -> str:
        body = {"model": BASE, "training_file": self.names["chat.jsonl"]}
        found: str = self.post("/fine_tuning/masks", body)["id"]
        return found

    def answer(self, model: str) -> Body:
        answer = self.client.chat.completions.create(
            model=model,
            messages=QUESTION,  # type: ignore[arg-type]
            temperature=0,
            max_tokens=8,
            logprobs=True,
        )
        (choice,) = answer.choices
        assert choice.logprobs is not None and choice.logprobs.content is not None
        logprobs = [round(token.logprob, 5) for token in choice.logprobs.content]
        return {"text": choice.message.content, "logprobs": logprobs}

    def leave_work(self) -> None:
        """Leave a run in the middle, and a job and a mask that wait for their turn."""
        step = self.step_of("killed")
        wait_for(lambda: self.step_of("killed") > step)
        self.create("further", {"file": "chat.jsonl"}, model=self.model("whole"))
        self.names["waiting mask"] = self.ask_for_mask()
        assert self.job("killed")["status"] == "running"

    def objects(self) -> Body:
        """Return what users see of everything."""
        jobs = [name for name, id_ in self.names.items() if id_.startswith("ftjob-")]
        listed = self.get("/files?limit=100")["data"]
        return {
            "files": {
                file["id"]: file
                | {"sha256": sha256(self.http.get(f"/files/{file['id']}/content").content)}
                for file in listed
            },
            "jobs": {name: self.job(name) for name in jobs},
            "checkpoints": {
                name: self.get(f"/fine_tuning/jobs/{self.names[name]}/checkpoints")["data"]
                for name in jobs
            },
            "models": self.get("/models")["data"],
        }


@contextmanager
def running(
    checkout: Path, data: Path, *, names: dict[str, str] | None = None, kill: bool = False
) -> Iterator[Service]:
    """Run `tunesmith up` of `checkout`; at the end stop it, or kill all of its processes."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    command = [sys.executable, "-m", "cli.main", "up", "--data-dir", str(data), "--port", port]
    environment = {**os.environ, **SETTINGS, "PYTHONPATH": str(checkout)}
    with subprocess.Popen(
        command, cwd=checkout, env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert port in process.stdout.readline(), "the service does not start"
        try:
            yield Service(f"http://127.0.0.1:{port}", {} if names is None else names)
        except BaseException:
            process.terminate()
            raise
        if kill:
            tree = psutil.Process(process.pid)
            for each in [tree, *tree.children(recursive=True)]:
                each.suspend()
            for each in [*tree.children(recursive=True), tree]:
                each.kill()
        else:
            process.terminate()


def files() -> dict[str, str]:
    """Return the contents of the uploads, by name."""
    chats = [
        {
            "messages": [
                {"role": "user", "content": "Say it again: " + " ".join([animal] * 25)},
                {"role": "assistant", "content": " ".join([animal] * 25) + f", {number} times"},
            ]
        }
        for number in range(10)
        for animal in ANIMALS
    ]
    pairs = [
        {
            "input": {"messages": [{"role": "user", "content": f"What is a {animal}?"}]},
            "preferred_output": [{"role": "assistant", "content": "It is an animal."}],
            "non_preferred_output": [{"role": "assistant", "content": "No idea."}],
        }
        for animal in ANIMALS
    ]
    instructions = [
        {"instruction": "Name an animal.", "input": animal[0], "output": animal}
        for animal in ANIMALS
    ]
    prompts = [f"{animal},an animal" for animal in ANIMALS]
    labels = [f"{animal},{'short' if animal < 'd' else 'long'}" for animal in ANIMALS]
    return {
        "chat.jsonl": _lines(chats),
        "preferences.jsonl": _lines(pairs),
        "instructions.jsonl": _lines(instructions),
        "prompts.csv": "\n".join(["prompt,completion", *prompts]) + "\n",
        "labels.csv": "\n".join(["text,label", *labels]) + "\n",
        "faulty.jsonl": '{"messages": []}\n',
    }


def _lines(rows: list[Body]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def saved_steps(data: Path, names: dict[str, str]) -> dict[str, int]:
    """Return the step of the newest resume state of each job that has one."""
    with closing(sqlite3.connect(f"file:{data}/tunesmith.db?mode=ro", uri=True)) as database:
        rows = database.execute("SELECT id, resume_states FROM jobs").fetchall()
    steps = {id_: json.loads(states)[0]["step"] for id_, states in rows if states}
    return {name: steps[id_] for name, id_ in names.items() if id_ in steps}


def pack(data: Path, archive: Path) -> None:
    """Pack what belongs to the data; equal files of many bundles take the room of one."""

    def plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        entry.uid = entry.gid = 0
        entry.uname = entry.gname = ""
        return entry

    with tarfile.open(archive, "w:xz", preset=9 | lzma.PRESET_EXTREME) as tar:
        for name in PACKED:
            if (data / name).exists():
                tar.add(data / name, name, filter=plain)


if __name__ == "__main__":
    main()
