"""Tokens as vLLM writes them, from transformers and PEFT: slowly, and by none of our code."""
# T tokens, V vocabulary

import threading
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import llguidance.hf
import numpy as np
import torch
from llguidance import LLMatcher, grammar_from
from peft import PeftModel
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TopKLogitsWarper,
)

from tests.worker.vllm.contract import CompletionRequest


class Models:
    """The base, and on copies of it the adapters, by name."""

    def __init__(self, base_folder: str) -> None:
        self._folder = base_folder
        self._lock = threading.Lock()
        self._models = {"": self._read_base()}
        self.tokenizer = AutoTokenizer.from_pretrained(base_folder)
        self.grammar_tokenizer = llguidance.hf.from_tokenizer(
            self.tokenizer, self._models[""].config.vocab_size
        )

    def _read_base(self):
        return AutoModelForCausalLM.from_pretrained(self._folder, dtype=torch.float32).eval()

    def load(self, name: str, folder: Path) -> None:
        self._models[name] = PeftModel.from_pretrained(self._read_base(), folder).eval()

    def unload(self, name: str) -> None:
        del self._models[name]

    @torch.inference_mode()
    def logits(self, adapter: str, tokens: list[int]) -> Tensor:
        """Return the logits (T, V) after each token."""
        with self._lock:
            return self._models[adapter](torch.tensor([tokens])).logits[0]


@dataclass
class Written:
    """One choice as it is written."""

    asked: CompletionRequest
    adapter: str
    index: int
    models: Models
    tokens: list[int] = field(default_factory=list)
    finish_reason: str | None = None

    def __post_init__(self) -> None:
        self._generator = torch.Generator().manual_seed(self.asked.seed + self.index)
        self._matcher = None
        if self.asked.structured_outputs is not None:
            grammar = grammar_from("grammar", self.asked.structured_outputs.grammar)
            self._matcher = LLMatcher(self.models.grammar_tokenizer, grammar, log_level=0)

    def write(self) -> dict:
        """Write a token; return the choice of a chunk, with the prompt in the first one."""
        asked = self.asked
        logits_TV = self.models.logits(self.adapter, [*asked.prompt, *self.tokens]).clone()
        self._hold_to_form(logits_TV[-1])  # before the log-probabilities are taken, unlike ours
        logprobs_TV = logits_TV.log_softmax(-1)
        token = self._choose(self._shifted(logits_TV[-1]))
        tokens, scored = [token], [logprobs_TV[-1]]
        if asked.echo and not self.tokens:
            tokens = [*asked.prompt, token]
            scored = [None, *logprobs_TV]
        self.tokens.append(token)
        if token in asked.stop_token_ids:
            self.finish_reason = "stop"
        elif len(self.tokens) == asked.max_tokens:
            self.finish_reason = "length"
        return {
            "index": self.index,
            "text": self.models.tokenizer.decode(tokens, skip_special_tokens=True),
            "logprobs": None if asked.logprobs is None else self._logprobs(tokens, scored),
            "finish_reason": self.finish_reason,
            "stop_reason": token if self.finish_reason == "stop" else None,
            "prompt_token_ids": list(asked.prompt) if len(self.tokens) == 1 else None,
            "token_ids": [token],
        }

    def _shifted(self, logits_V: Tensor) -> Tensor:
        logits_V = logits_V.clone()
        for name, bias in (self.asked.logit_bias or {}).items():
            logits_V[int(name)] += bias
        if len(self.tokens) < self.asked.min_tokens:
            logits_V[self.asked.stop_token_ids] = float("-inf")
        seen = torch.tensor([[*self.asked.prompt, *self.tokens]])
        repetition = RepetitionPenaltyLogitsProcessor(self.asked.repetition_penalty)
        logits_V = repetition(seen, logits_V[None])[0]
        for token, times in Counter(self.tokens).items():
            logits_V[token] -= self.asked.frequency_penalty * times + self.asked.presence_penalty
        return logits_V

    def _hold_to_form(self, logits_V: Tensor) -> None:
        if self._matcher is not None:
            bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
            allowed = np.unpackbits(bits, count=len(logits_V), bitorder="little").astype(bool)
            logits_V[~torch.from_numpy(allowed)] = float("-inf")

    def _choose(self, logits_V: Tensor) -> int:
        if self.asked.temperature < 1e-5:
            token = int(logits_V.argmax())
        else:
            logits_1V = (logits_V / self.asked.temperature)[None]
            if self.asked.min_p:
                logits_1V = MinPLogitsWarper(self.asked.min_p)(None, logits_1V)
            if self.asked.top_k > 0:
                logits_1V = TopKLogitsWarper(self.asked.top_k)(None, logits_1V)
            best_V, order_V = logits_1V[0].softmax(-1).sort(descending=True)
            best_V[best_V.cumsum(-1) - best_V >= self.asked.top_p] = 0
            token = int(order_V[torch.multinomial(best_V, 1, generator=self._generator)])
        if self._matcher is not None and not self._matcher.is_stopped():
            self._matcher.consume_token(token)
        return token

    def _logprobs(self, tokens: list[int], scored: list[Tensor | None]) -> dict:
        """The chosen token stands first among the best, and once."""
        names = [f"token_id:{token}" for token in tokens]
        token_logprobs, top_logprobs = [], []
        for token, logprobs_V in zip(tokens, scored, strict=True):
            if logprobs_V is None:
                token_logprobs.append(None)
                top_logprobs.append(None)
                continue
            token_logprobs.append(float(logprobs_V[token]))
            best = [token, *logprobs_V.topk(self.asked.logprobs).indices.tolist()]
            top_logprobs.append(
                {f"token_id:{each}": max(float(logprobs_V[each]), -9999.0) for each in best}
            )
        offsets = np.cumsum([0, *map(len, names[:-1])]).tolist()
        return {
            "text_offset": offsets,
            "token_logprobs": token_logprobs,
            "tokens": names,
            "top_logprobs": top_logprobs,
        }
