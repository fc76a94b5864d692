"""What others make of a downloaded bundle: plain transformers and PEFT, as its layout promises."""

import json
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from openai.types.fine_tuning import FineTuningJob
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)

from core.strategies.load import load_adapter

MODEL_CLASSES: dict[str, Any] = {
    "generation": AutoModelForCausalLM,
    "seq2seq": AutoModelForSeq2SeqLM,
    "classification": AutoModelForSequenceClassification,
}


@dataclass(frozen=True)
class Answer:
    """A text with the log-probability of each of its tokens."""

    text: str
    logprobs: list[float]

    def is_close_to(self, other: "Answer") -> bool:
        return self.text == other.text and self.logprobs == pytest.approx(other.logprobs, abs=1e-3)


class Bundle:
    """A bundle in a folder, loaded on its base in fp32."""

    def __init__(self, folder: Path, base_folder: Path, job: FineTuningJob) -> None:
        self.job: Any = job
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = _load(folder, base_folder, self.job)

    @torch.no_grad()
    def write(self, prompt: str, new_tokens: int) -> Answer:
        """Return the likeliest continuation, or answer, of a text."""
        encoded = self.tokenizer(prompt, return_tensors="pt", return_token_type_ids=False)
        ends = {self.model.generation_config.eos_token_id, self.tokenizer.eos_token_id} - {None}
        output = self.model.generate(
            **encoded,
            do_sample=False,
            max_new_tokens=new_tokens,
            eos_token_id=sorted(ends),
            forced_eos_token_id=None,
            pad_token_id=self.tokenizer.pad_token_id,
            output_logits=True,
            return_dict_in_generate=True,
        )
        written = output.sequences[0, -len(output.logits) :].tolist()
        tokens = list(takewhile(lambda token: token not in ends, written))
        text = self.tokenizer.decode(tokens, skip_special_tokens=True)
        scores = zip(tokens, output.logits, strict=False)
        return Answer(text, [logits.log_softmax(-1)[0, token].item() for token, logits in scores])

    def chat_prompt(self, messages: list[dict[str, str]]) -> str:
        """Return a conversation as the text that the model reads."""
        if self.tokenizer.chat_template is None:  # a sequence-to-sequence base reads the question
            return messages[-1]["content"]
        prompt: str = self.tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=False
        )
        return prompt

    @torch.no_grad()
    def scores(self, text: str) -> dict[str, float]:
        """Return the probability of every label."""
        encoded = self.tokenizer(text, return_tensors="pt", return_token_type_ids=False)
        logits = self.model(**encoded).logits[0]
        objective = self.job.objective
        scores = logits.sigmoid() if objective["multi_label"] else logits.softmax(dim=-1)
        return dict(zip(objective["labels"], scores.tolist(), strict=True))


def _load(folder: Path, base_folder: Path, job: Any) -> Any:
    model_class = MODEL_CLASSES[job.task]
    if job.strategy["type"] == "full":
        return model_class.from_pretrained(folder, dtype=torch.float32).eval()
    labels = {"num_labels": len(job.objective["labels"])} if job.task == "classification" else {}
    base = model_class.from_pretrained(base_folder, dtype=torch.float32, **labels).eval()
    if job.strategy["type"] == "bottleneck":  # PEFT knows no such adapter
        assert json.loads((folder / "adapter_config.json").read_text())["reduction_factor"]
        load_adapter(base, folder, AutoTokenizer.from_pretrained(folder)).install()
        return base
    return peft.PeftModel.from_pretrained(base, folder).eval()
