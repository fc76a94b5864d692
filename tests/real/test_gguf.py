"""A tuned SmolLM2 as GGUF, run by llama.cpp: merged, as an adapter, and quantized.

The merged model in transformers is the reference. llama.cpp computes with weights, keys and values
of 16 bits, so that two tokens that are nearly as likely may change places.
"""

from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import peft
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from core.batching.render import render_prompt
from core.exports.gguf.llama_cpp import LlamaCpp
from core.exports.gguf.read import Row, score
from core.exports.gguf.write import write_adapter, write_model
from core.spec.base_model import BaseModelSpec
from core.spec.events import RunFinished
from core.spec.job import JobSpec
from core.spec.objective import SupervisedSpec
from core.spec.strategy import LoraSpec
from core.spec.training import TrainingSpec
from core.spec.workspace import Workspace
from core.training.recipe import train
from tests.llama_cpp_sources import llama_cpp_or_skip
from tests.real import rows
from tests.real.answers import Token, written_by_transformers

PROMPTS, NEW_TOKENS = 20, 24
NEAR_TIE_NATS = 0.05
DISTANCE = {"f16": 0.005, "adapter": 0.005, "q8_0": 0.08, "q4_k_m": 0.25}
"""Mean difference of log-probabilities in nats; docs/exports-gguf.md states them."""
AGREEMENT = {"f16": 0.99, "adapter": 0.99, "q8_0": 0.93, "q4_k_m": 0.8}
"""The share of tokens at which both prefer the same one."""

pytestmark = [
    pytest.mark.timeout(1800),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


@dataclass(frozen=True)
class Tuned:
    """The folders of a tuned model, and what the merged one says in transformers."""

    base: Path
    adapter: Path
    merged: Path
    prompts: list[list[int]]
    answers: list[list[Token]]
    rows: list[Row]
    logprobs: list[list[float]]
    preferred: list[list[int]]


@pytest.fixture(scope="module")
def llama_cpp() -> LlamaCpp:
    return llama_cpp_or_skip()


@pytest.fixture(scope="module")
def tuned(llama_cpp: LlamaCpp, smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Tuned:
    folder = tmp_path_factory.mktemp("tuned")
    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    adapter = trained(smollm2, folder / "workspace", tokenizer)
    model = AutoModelForCausalLM.from_pretrained(smollm2, dtype=torch.float32)
    model = peft.PeftModel.from_pretrained(model, adapter).merge_and_unload().eval()
    model.save_pretrained(folder / "merged")
    tokenizer.save_pretrained(folder / "merged")
    names = [name for name, _ in rows.described_functions()][::37][:PROMPTS]
    questions = (f"What does `{name}` of Python do?" for name in names)
    prompts = [render_prompt(tokenizer, [rows.user(question)]) for question in questions]
    answers = [written_by_transformers(model, tokenizer, each, NEW_TOKENS) for each in prompts]
    scored = [
        row_of(prompt, answer, tokenizer)
        for prompt, answer in zip(prompts, answers, strict=True)
        if answer
    ]
    said = [said_by(model, row) for row in scored]
    logprobs, preferred = [each[0] for each in said], [each[1] for each in said]
    return Tuned(smollm2, adapter, folder / "merged", prompts, answers, scored, logprobs, preferred)


def trained(base: Path, folder: Path, tokenizer: Any) -> Path:
    """Tune SmolLM2 on docstrings; return the bundle."""
    workspace = Workspace(folder=folder)
    folder.mkdir()
    rows.write_long_answers(workspace.train_file, tokenizer)
    spec = JobSpec(
        base=BaseModelSpec(id="smollm2", source=str(base)),
        strategy=LoraSpec(rank=8),
        objective=SupervisedSpec(),
        training=TrainingSpec(max_steps=8, batch_size=2, precision="fp32", learning_rate=2e-3),
        seed=1,
    )
    *_, last = train(spec, workspace, lambda: False)
    assert isinstance(last, RunFinished)
    return last.folder


def row_of(prompt: list[int], answer: list[Token], tokenizer: Any) -> Row:
    written = tokenizer("".join(token.text for token in answer), add_special_tokens=False)
    tokens = (*prompt, *written["input_ids"])
    return Row(tokens, tuple(range(len(prompt), len(tokens))))


@torch.inference_mode()
def said_by(model: Any, row: Row) -> tuple[list[float], list[int]]:
    logits = model(input_ids=torch.tensor([row.tokens])).logits[0].float()
    before = torch.tensor(row.scored) - 1
    wanted = torch.tensor(row.tokens)[before + 1]
    logprobs = logits[before].log_softmax(-1).gather(1, wanted[:, None])[:, 0]
    return logprobs.tolist(), logits[before].argmax(-1).tolist()


def written_by_llama_cpp(file: Path, prompts: list[list[int]], end: int, **options: Any) -> Any:
    """Return the likeliest continuations, by llama.cpp's own Python package."""
    import llama_cpp as package

    model = package.Llama(str(file), n_ctx=512, verbose=False, n_threads=1, **options)
    for prompt in prompts:
        tokens: list[int] = []
        for token in model.generate(prompt, temp=0.0, repeat_penalty=1.0):
            if token == end or len(tokens) == NEW_TOKENS:
                break
            tokens.append(token)
        yield tokens
        model.reset()
    model.close()


def require_same_answers(tuned: Tuned, found: Any, tokenizer: Any) -> int:
    """Return the number of answers that are equal to the last token; others part at a near tie."""
    equal = 0
    for tokens, wanted in zip(found, tuned.answers, strict=True):
        texts = [tokenizer.decode([token]) for token in tokens]
        pairs = enumerate(zip(texts, wanted, strict=False))
        parting = next((i for i, (text, token) in pairs if text != token.text), None)
        if parting is None:
            assert len(texts) == len(wanted)
            equal += 1
        else:
            lead = wanted[parting].lead
            assert lead is not None and lead < NEAR_TIE_NATS, (texts, wanted[parting])
    return equal


@pytest.mark.parametrize("form", ["merged", "adapter"])
def test_twenty_prompts_are_answered_as_by_the_merged_model(form, tuned, llama_cpp, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(tuned.base)
    file, options = tmp_path / "model.gguf", {}
    source = tuned.merged if form == "merged" else tuned.base
    assert write_model(llama_cpp, source, tuned.base, file) == ()
    if form == "adapter":
        write_adapter(llama_cpp, tuned.adapter, tuned.base, tmp_path / "adapter.gguf")
        options = {"lora_path": str(tmp_path / "adapter.gguf")}
    found = written_by_llama_cpp(file, tuned.prompts, tokenizer.eos_token_id, **options)
    equal = require_same_answers(tuned, found, tokenizer)
    print(f"{form}: {equal} of {PROMPTS} answers equal in every token")
    assert equal >= PROMPTS - 2


@pytest.mark.parametrize("form", DISTANCE)
def test_distances_are_those_that_are_stated(form, tuned, llama_cpp, tmp_path):
    file, adapter = tmp_path / "model.gguf", None
    if form == "adapter":
        adapter = tmp_path / "adapter.gguf"
        write_model(llama_cpp, tuned.base, tuned.base, file)
        write_adapter(llama_cpp, tuned.adapter, tuned.base, adapter)
    else:
        write_model(llama_cpp, tuned.merged, tuned.base, file, form)
    found = score(llama_cpp, file, tuned.rows, adapter)
    differences = [
        abs(a - b)
        for one, other in zip(found, tuned.logprobs, strict=True)
        for a, b in zip(one.logprobs, other, strict=True)
    ]
    agreeing = [
        a == b
        for one, other in zip(found, tuned.preferred, strict=True)
        for a, b in zip(one.preferred, other, strict=True)
    ]
    size = file.stat().st_size / 1e6
    print(
        f"{form}: {fmean(differences):.4f} nats on average, {max(differences):.3f} at most, "
        f"{fmean(agreeing):.1%} of {len(agreeing)} tokens agree, {size:.0f} MB"
    )
    assert fmean(differences) < DISTANCE[form]
    assert fmean(agreeing) > AGREEMENT[form]
