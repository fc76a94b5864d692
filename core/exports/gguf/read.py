"""What llama.cpp makes of a GGUF file: tokens of texts, and log-probabilities of given tokens."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.exports.gguf.llama_cpp import LlamaCpp


@dataclass(frozen=True)
class Row:
    """Tokens, and the indices of those that are scored; the first token is never scored."""

    tokens: tuple[int, ...]
    scored: tuple[int, ...]


@dataclass(frozen=True)
class Scores:
    """For each scored token its log-probability in nats, and the token that is most likely."""

    logprobs: tuple[float, ...]
    preferred: tuple[int, ...]


def score(
    llama_cpp: LlamaCpp, model: Path, rows: Sequence[Row], adapter: Path | None = None
) -> list[Scores]:
    """Return the scores of every row, by the model or by the model with an adapter.

    Raises ConversionFailed if llama.cpp cannot load or run the files.
    """
    asked = [{"tokens": list(row.tokens), "scored": list(row.scored)} for row in rows]
    found = _ask(llama_cpp, model, rows=asked, adapter=str(adapter) if adapter else None)
    return [Scores(tuple(row["logprobs"]), tuple(row["preferred"])) for row in found["rows"]]


def tokens_of(llama_cpp: LlamaCpp, model: Path, texts: Sequence[str]) -> list[list[int]]:
    """Return the tokens of prompts, with the first token that llama.cpp may add."""
    tokens: list[list[int]] = _ask(llama_cpp, model, texts=list(texts))["texts"]
    return tokens


def ends_among(llama_cpp: LlamaCpp, model: Path, tokens: Sequence[int]) -> set[int]:
    """Return those of the tokens at which llama.cpp ends an answer."""
    return set(_ask(llama_cpp, model, ends=list(tokens))["ends"])


def _ask(llama_cpp: LlamaCpp, model: Path, **question: Any) -> dict[str, Any]:
    text = json.dumps({"file": str(model), "threads": llama_cpp.threads, **question})
    answer: dict[str, Any] = json.loads(llama_cpp.run("reader", (), text))
    return answer
