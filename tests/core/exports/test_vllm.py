"""The folders for vLLM in vLLM itself, for those who have one (docs/decisions/0011 says how)."""

import json
import os
import subprocess
from pathlib import Path
from statistics import fmean

import peft
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from core.spec.strategy import LoraSpec
from tests.core.engine.bundles import write_bundle
from tests.core.exports.exporting import export, options_for
from tests.worker.workshop import TINY

PYTHON = os.environ.get("TUNESMITH_TEST_VLLM")
pytestmark = pytest.mark.skipif(PYTHON is None, reason="TUNESMITH_TEST_VLLM names no Python")

TEXTS = ("The quick brown fox jumps over the lazy dog.", "def total(rows): return sum(rows)")
PATTERNS = LoraSpec(
    rank=4,
    alpha=8,
    target_modules=("q_proj", "v_proj", "down_proj"),
    rank_pattern={"q_proj": 2},
    alpha_pattern={"v_proj": 32.0},
)


@torch.inference_mode()
def figures(model, rows):
    """What PEFT says of every token but the first."""
    found = []
    for row in rows:
        logits_TV = model.eval()(torch.tensor([row])).logits[0, :-1].float()
        targets_T = torch.tensor(row[1:])
        found.append(logits_TV.log_softmax(-1).gather(1, targets_T[:, None])[:, 0].tolist())
    return found


def by_vllm(**asked):
    script = Path(__file__).with_name("vllm_figures.py")
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [PYTHON, str(script)],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        env=environment,
        cwd="/",
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def distance(one, other):
    rows = zip(one, other, strict=True)
    return fmean(abs(a - b) for row in rows for a, b in zip(*row, strict=True))


@pytest.mark.parametrize("form", ["merged", "adapter"])
def test_vllm_says_what_peft_says(tmp_path, store, form):
    bundle = write_bundle(tmp_path / "bundle", store, TINY, PATTERNS)
    precision = {"precision": "fp32"} if form == "merged" else {}
    export(bundle, options_for("vllm", form=form, **precision), tmp_path / "out")
    tokenizer = AutoTokenizer.from_pretrained(TINY.source)
    rows = [tokenizer(text)["input_ids"] for text in TEXTS]
    plain = AutoModelForCausalLM.from_pretrained(TINY.source, dtype=torch.float32)
    base = figures(plain, rows)
    wanted = figures(peft.PeftModel.from_pretrained(plain, str(tmp_path / "bundle")), rows)
    out = str(tmp_path / "out")
    asked = (
        {"model": out} if form == "merged" else {"model": TINY.source, "adapter": out, "rank": 8}
    )
    found = by_vllm(rows=rows, **asked)
    assert distance(found, wanted) < 1e-3 < distance(found, base)
