"""Reads a GGUF file with llama.cpp's library, in a process of its own.

    python -m core.exports.gguf.reader < question > answer

The question and the answer are JSON. `texts` asks for the tokens of texts, `ends` which tokens end
an answer, and `rows` for the log-probabilities of given tokens, with an adapter if one is named.
"""

# T tokens of a row, S scored tokens, V vocabulary

import ctypes
import json
import sys
from typing import Any

import llama_cpp
import numpy as np
from numpy.typing import NDArray

_BATCH = 512
"""Tokens of one step."""


def main() -> None:
    question = json.load(sys.stdin)
    rows = question.get("rows", [])
    model = _load(question["file"], vocabulary_only=not rows)
    vocabulary = llama_cpp.llama_model_get_vocab(model)
    answer: dict[str, Any] = {
        "texts": [_tokens(vocabulary, text) for text in question.get("texts", [])],
        "ends": [
            token
            for token in question.get("ends", [])
            if llama_cpp.llama_vocab_is_eog(vocabulary, token)
        ],
    }
    if rows:
        context = _context(model, max(len(row["tokens"]) for row in rows), question["threads"])
        if question.get("adapter"):
            _use_adapter(model, context, question["adapter"])
        size = llama_cpp.llama_vocab_n_tokens(vocabulary)
        answer["rows"] = [_score(context, row, size) for row in rows]
    json.dump(answer, sys.stdout)


def _load(file: str, *, vocabulary_only: bool) -> Any:
    llama_cpp.llama_backend_init()
    parameters = llama_cpp.llama_model_default_params()
    parameters.vocab_only = vocabulary_only
    model = llama_cpp.llama_model_load_from_file(file.encode(), parameters)
    if not model:
        raise SystemExit(f"llama.cpp cannot load {file}; its reason is above.")
    return model


def _context(model: Any, tokens: int, threads: int) -> Any:
    parameters = llama_cpp.llama_context_default_params()
    parameters.n_ctx = tokens + 8
    parameters.n_batch = parameters.n_ubatch = _BATCH
    parameters.n_threads = parameters.n_threads_batch = threads
    context = llama_cpp.llama_init_from_model(model, parameters)
    if not context:
        raise SystemExit("llama.cpp cannot make a context; its reason is above.")
    return context


def _use_adapter(model: Any, context: Any, file: str) -> None:
    adapter = llama_cpp.llama_adapter_lora_init(model, file.encode())
    if not adapter:
        raise SystemExit(f"llama.cpp cannot load the adapter {file}; its reason is above.")
    adapters = (llama_cpp.llama_adapter_lora_p_ctypes * 1)(adapter)
    if llama_cpp.llama_set_adapters_lora(context, adapters, 1, (ctypes.c_float * 1)(1.0)):
        raise SystemExit("llama.cpp cannot use the adapter; its reason is above.")


def _tokens(vocabulary: Any, text: str) -> list[int]:
    """Return the tokens of a text as llama.cpp cuts a prompt: special tokens parsed and added."""
    data = text.encode()
    room = len(data) + 16
    found = (llama_cpp.llama_token * room)()
    count = llama_cpp.llama_tokenize(vocabulary, data, len(data), found, room, True, True)
    return list(found[:count])


def _score(context: Any, row: dict[str, Any], size: int) -> dict[str, Any]:
    """Return the log-probability of each scored token, and the token that the model prefers."""
    tokens, before = row["tokens"], {index - 1 for index in row["scored"]}
    llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context), True)
    logprobs, preferred = [], []
    for start in range(0, len(tokens), _BATCH):
        part = tokens[start : start + _BATCH]
        _decode(context, part, start, before)
        for index in range(start, start + len(part)):
            if index in before:
                pointer = llama_cpp.llama_get_logits_ith(context, index - start)
                logits_V = np.ctypeslib.as_array(pointer, shape=(size,)).astype(np.float64)
                logprobs.append(_log_probability(logits_V, tokens[index + 1]))
                preferred.append(int(logits_V.argmax()))
    return {"logprobs": logprobs, "preferred": preferred}


def _decode(context: Any, tokens: list[int], start: int, wanted: set[int]) -> None:
    batch = llama_cpp.llama_batch_init(len(tokens), 0, 1)
    batch.n_tokens = len(tokens)
    for i, token in enumerate(tokens):
        batch.token[i], batch.pos[i] = token, start + i
        batch.n_seq_id[i], batch.seq_id[i][0] = 1, 0
        batch.logits[i] = start + i in wanted
    status = llama_cpp.llama_decode(context, batch)
    llama_cpp.llama_batch_free(batch)
    if status:
        raise SystemExit(f"llama.cpp cannot decode a row: status {status}.")


def _log_probability(logits_V: NDArray[np.float64], token: int) -> float:
    highest = logits_V.max()
    return float(logits_V[token] - highest - np.log(np.exp(logits_V - highest).sum()))


if __name__ == "__main__":
    main()
