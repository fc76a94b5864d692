"""Jobs that cannot be done end failed without having run, with the line or the field at fault."""

import json
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoTokenizer

from core.jobs.state import JobStatus
from core.spec.base_model import BaseModelSpec
from core.spec.job import JobSpec
from tests.worker.workshop import TINY, Workshop, worker_here

CHAT = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
LONG = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b " * 99}]}
PAIR = {"prompt": "a", "chosen": "b", "rejected": "c"}
EQUAL_PAIR = {"prompt": "a", "chosen": "b", "rejected": "b"}
CLASSES = {
    "task": "classification",
    "objective": {"type": "classification", "labels": ["good", "bad"]},
}


def base_without_template(folder: Path) -> dict[str, str]:
    """Write what a job reads of a base before its weights."""
    tokenizer = AutoTokenizer.from_pretrained(TINY.source)
    tokenizer.chat_template = None
    tokenizer.save_pretrained(folder)
    AutoConfig.from_pretrained(TINY.source).save_pretrained(folder)
    return {"id": "no-template", "source": str(folder)}


def quantized_base(folder: Path) -> dict[str, str]:
    base = base_without_template(folder)
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "gptq"}
    (folder / "config.json").write_text(json.dumps(config))
    return base


def submit(workshop: Workshop, rows: list[dict[str, Any]], fields: dict[str, Any]) -> str:
    """Create a job that the API would have looked at more closely."""
    defaults = {
        "base": TINY,
        "strategy": {"rank": 2},
        "training": {"epochs": 1, "max_length": 64},
        "seed": 1,
    }
    file_id = workshop.upload("".join(json.dumps(row) + "\n" for row in rows))
    return workshop.create(JobSpec.model_validate(defaults | fields), file_id)


def test_what_cannot_be_done_fails_from_validating_files(workshop: Workshop) -> None:
    """All at once, in one worker: each is refused in a child of its own."""
    no_template = base_without_template(workshop.folder / "no-template")
    quantized = quantized_base(workshop.folder / "quantized")
    data = ("training_file", "invalid_training_file")
    module = "unknown_target_module"
    cases: dict[str, tuple[list[dict[str, Any]], dict[str, Any], tuple[str, str], str]] = {
        "unknown module": (
            [CHAT],
            {"strategy": {"rank": 2, "target_modules": ["q_porj"]}},
            ("strategy.target_modules", module),
            "q_proj",
        ),
        "unknown module to save": (
            [CHAT],
            {"strategy": {"rank": 2, "modules_to_save": ["lm_haed"]}},
            ("strategy.modules_to_save", module),
            "lm_head",
        ),
        "rank above the width": (
            [CHAT],
            {"strategy": {"rank": 1024}},
            ("strategy.rank", "rank_above_width"),
            "model.layers.0",
        ),
        "label missing": (
            [{"text": "a", "label": "good"}, {"text": "a", "label": "ugly"}],
            CLASSES,
            data,
            "Line 2",
        ),
        "equal answers": ([PAIR, EQUAL_PAIR], {"objective": {"type": "dpo"}}, data, "Line 2"),
        "too long": ([CHAT, LONG], {}, data, "Line 2"),
        "no chat template": ([CHAT], {"base": no_template}, data, "template"),
        "impossible combination": (
            [CHAT],
            {"task": "seq2seq"},
            ("task", "impossible_combination"),
            "no encoder",
        ),
        "quantization": ([CHAT], {"base": quantized}, ("model", "unsupported_model"), "gptq"),
    }
    ids = {name: submit(workshop, rows, fields) for name, (rows, fields, *_) in cases.items()}
    with worker_here(workshop):
        for job_id in ids.values():
            workshop.wait_for_end(job_id)
    for name, (_, _, (param, code), says) in cases.items():
        job = workshop.job(ids[name])
        assert job.status == JobStatus.FAILED, name
        assert job.error is not None, name
        assert (job.error["param"], job.error["code"]) == (param, code), (name, job.error)
        assert says in job.error["message"], name
        assert (job.started_at, job.total_steps, job.step) == (None, None, 0), name
        assert "Fine-tuning job started" not in workshop.messages(ids[name]), name


def test_a_base_that_is_not_there_is_named(workshop: Workshop) -> None:
    gone = BaseModelSpec(id="gone", source=str(workshop.folder / "gone"))
    job_id = submit(workshop, [CHAT], {"base": gone})
    with worker_here(workshop):
        job = workshop.wait_for_end(job_id)
    assert job.error is not None
    assert (job.error["param"], job.error["code"]) == ("model", "base_missing")
    assert job.started_at is None
