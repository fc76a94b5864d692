"""Verdicts, suggestions and the choice of `auto`, on devices of any size."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from core.planning.choice import FitsOf, choose_strategy
from core.planning.fit import MARGIN, Correction, Fit, judge
from core.planning.run import PlannedRun
from core.planning.suggestion import suggestion
from core.planning.workload import Workload, characters_per_token, workload_of
from core.spec.base_model import BaseModelSpec
from core.spec.calibration import Calibration
from core.spec.dataset import DatasetReport
from core.spec.job import JobSpec
from core.spec.objective import DpoSpec
from core.spec.strategy import FullSpec, LoraSpec, PrefixSpec, QloraSpec
from core.spec.training import TrainingSpec
from tests.core.planning.devices import device

LLAMA_1B = {
    "model_type": "llama",
    "vocab_size": 128_256,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 131_072,
    "tie_word_embeddings": True,
}
BASE = BaseModelSpec(id="base", source="/nowhere")
ROWS = Workload(rows=500, mean_tokens=600, longest_tokens=1024)


def run_of(workload: Workload = ROWS, config: object = None, **fields: object) -> PlannedRun:
    spec = JobSpec.model_validate({"base": BASE, "seed": 1, **fields})
    return PlannedRun(spec, config or LLAMA_1B, workload)


def test_a_verdict_needs_a_margin_and_no_is_certain():
    run = run_of(training=TrainingSpec(gradient_checkpointing=False))
    peak = judge(run, device(1000)).peak_bytes
    for total, free, verdict in [
        (4 * peak, peak * (1 + MARGIN) + 1, "yes"),
        (4 * peak, peak, "tight"),
        (peak, peak, "tight"),
        (peak / (1 + MARGIN) - 1, peak / 2, "no"),
    ]:
        cpu = device(memory_bytes=int(total), free_bytes=int(free))
        assert judge(run, cpu).verdict == verdict
    assert judge(run, None).verdict is None


def test_checkpointing_is_planned_only_where_it_is_needed():
    run = run_of()
    assert not judge(run, device(1000)).checkpointed
    needed = judge(run, device(1000)).peak_bytes
    tight = device(memory_bytes=4 * needed, free_bytes=needed)
    found = judge(run, tight)
    assert found.checkpointed and found.peak_bytes < 0.8 * needed
    assert found.seconds_per_step > judge(run, device(1000)).seconds_per_step


def test_more_of_anything_needs_more_memory():
    least = judge(run_of(replace(ROWS, mean_tokens=100, longest_tokens=200)), device(1000))
    usual = judge(run_of(), device(1000))
    full = judge(run_of(strategy=FullSpec()), device(1000))
    large = judge(run_of(training=TrainingSpec(micro_batch_tokens=8192)), device(1000))
    assert least.peak_bytes < usual.peak_bytes < full.peak_bytes
    assert usual.peak_bytes <= large.peak_bytes


def test_a_suggestion_fits_and_is_the_first_that_does():
    full = run_of(
        strategy=FullSpec(), training=TrainingSpec(gradient_checkpointing=False, precision="bf16")
    )
    small = device(12)
    assert judge(full, small).verdict != "yes"
    found = suggestion(full, small)
    assert found is not None
    assert judge(found.run, small).verdict == "yes"
    assert found.changes["strategy"]["type"] == "lora"
    assert "strategy.type to lora" in found.message
    roomy = device(memory_bytes=judge(full, small).peak_bytes, free_bytes=10**15)
    assert suggestion(full, roomy).changes == {"training": {"gradient_checkpointing": True}}
    assert suggestion(full, device(0.1)) is None


def test_a_prefix_of_an_encoder_decoder_is_never_checkpointed():
    run = run_of(config={"model_type": "t5"}, task="seq2seq", strategy=PrefixSpec(virtual_tokens=5))
    assert not judge(run, device(0.7)).checkpointed


def on(workers: list[Calibration]) -> FitsOf:
    return lambda run: [judge(run, worker) for worker in workers]


def test_auto_believes_dry_runs():
    found = Correction(memory=8.0)
    run = run_of()
    assert judge(run, device(20)).verdict == "yes"

    def fits_of(run: PlannedRun) -> list[Fit]:
        is_lora = run.spec.strategy.type == "lora"
        return [judge(run, device(20), found if is_lora else Correction())]

    assert choose_strategy(run, fits_of).strategy == QloraSpec()


def test_auto_takes_lora_then_qlora_and_full_for_much_data():
    run = run_of()
    assert choose_strategy(run, on([device(100)])).strategy == LoraSpec()
    assert choose_strategy(run, on([])).strategy == LoraSpec()
    assert choose_strategy(None, on([device(100)])).strategy == LoraSpec()
    tight = choose_strategy(run_of(training=TrainingSpec(precision="fp32")), on([device(10)]))
    assert (tight.strategy, tight.reason.split(":")[0]) == (QloraSpec(), "qlora")
    assert choose_strategy(run, on([device(0.5)])).strategy == LoraSpec()
    many = replace(ROWS, rows=20_000)
    assert choose_strategy(run_of(many), on([device(1000)])).strategy == LoraSpec()
    small = {**LLAMA_1B, "hidden_size": 256, "intermediate_size": 768, "vocab_size": 4096}
    chosen = choose_strategy(run_of(many, config=small), on([device(100)]))
    assert (chosen.strategy, chosen.reason.split(":")[0]) == (FullSpec(), "full")
    nf4 = BASE.model_copy(update={"quantization": "nf4"})
    assert choose_strategy(run_of(base=nf4), on([device(100)])).strategy == LoraSpec()


def test_a_dry_run_scales_memory_and_time():
    run = run_of()
    plain = judge(run, device(1000))
    corrected = judge(run, device(1000), Correction(memory=1.5, seconds=2))
    assert corrected.peak_bytes == pytest.approx(1.5 * plain.peak_bytes)
    assert corrected.seconds_per_step == pytest.approx(2 * plain.seconds_per_step)


def test_rows_are_estimated_from_the_report():
    report = DatasetReport(
        format="chat", rows=100, faults=(), fault_count=0, characters=80_000,
        longest_characters=2000,
    )  # fmt: skip
    run = run_of()
    rows = workload_of(run.spec, report, 10**6, run.fields)
    ratio = characters_per_token(128_256)
    assert rows.mean_tokens == pytest.approx(800 / ratio + 12)
    assert rows.longest_tokens == pytest.approx(2000 / ratio + 12, abs=1)
    short = run_of(training=TrainingSpec(max_length=64))
    limited = workload_of(short.spec, report, 10**6, short.fields)
    assert limited.longest_tokens == limited.mean_tokens == 64
    pairs = report.model_copy(update={"format": "preference"})
    dpo = run_of(objective=DpoSpec())
    assert workload_of(dpo.spec, pairs, 10**6, dpo.fields).sequences_per_row == 2
    held_out = run_of(evaluation={"split": 0.2})
    assert workload_of(held_out.spec, report, 10**6, held_out.fields).rows == 80


def test_characters_per_token_are_near_those_of_real_tokenizers():
    folder = Path(__file__).parents[3]
    rows = (folder / "examples" / "python_docs" / "train.jsonl").read_text(encoding="utf-8")
    texts = [m["content"] for row in rows.splitlines()[:100] for m in json.loads(row)["messages"]]
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder / "core" / "models" / "tiny")
    tokens = sum(len(ids) for ids in tokenizer(texts)["input_ids"])
    real = sum(map(len, texts)) / tokens
    assert characters_per_token(len(tokenizer)) == pytest.approx(real, rel=0.25)
