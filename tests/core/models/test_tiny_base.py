"""The base model that ships with the project is whole, small, in chat form, and has learned."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

ROOT = Path(__file__).parents[3]
TINY = ROOT / "core" / "models" / "tiny"
# The card says what the model reaches; this leaves room for other versions and machines.
BITS_PER_BYTE_BOUND = 2.0

TOOLS = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}]
CONVERSATION: list[dict[str, Any]] = [
    {"role": "system", "content": "Count."},
    {"role": "user", "content": [{"type": "text", "text": "1 + 1?"}]},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {
                "id": "call_1",
                "type": "function",
                "function": {"name": "add", "arguments": '{"terms": [1, 1]}'},
            }
        ],
    },
    {"role": "tool", "tool_call_id": "call_1", "content": "2"},
    {"role": "assistant", "content": "It is 2."},
]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(TINY)


@pytest.fixture(scope="module")
def model() -> Any:
    return AutoModelForCausalLM.from_pretrained(TINY, dtype=torch.float32).eval()


def test_folder_takes_at_most_12_megabytes() -> None:
    assert sum(file.stat().st_size for file in TINY.iterdir()) <= 12_000_000


def test_model_is_a_small_llama_that_ends_its_turns(model: Any, tokenizer: Any) -> None:
    assert 3_000_000 <= model.num_parameters() <= 6_000_000
    assert model.config.model_type == "llama" and model.config.tie_word_embeddings
    assert len(tokenizer) == model.config.vocab_size
    assert tokenizer.eos_token == "<|im_end|>"
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id


def test_stored_weights_are_bf16() -> None:
    stored = AutoModelForCausalLM.from_pretrained(TINY)
    assert {parameter.dtype for parameter in stored.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("text", ["def f():\n\treturn 'é ☃'", "  two\r\n\n lines \x00"])
def test_any_text_survives_tokenization(tokenizer: Any, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize("tools", [None, TOOLS], ids=["plain", "with tools"])
@pytest.mark.parametrize("first", [0, 1], ids=["with system message", "without"])
def test_beginning_of_a_conversation_renders_to_beginning_of_its_text(
    tokenizer: Any, tools: Any, first: int
) -> None:
    messages = CONVERSATION[first:]
    whole = tokenizer.apply_chat_template(messages, tools=tools, tokenize=False)
    for count in range(1, len(messages)):
        asks = messages[count]["role"] == "assistant"
        part = tokenizer.apply_chat_template(
            messages[:count], tools=tools, tokenize=False, add_generation_prompt=asks
        )
        assert whole.startswith(part)
    assert ("add" in whole.split("<|im_end|>")[0]) == (tools is not None)


def test_mask_covers_what_the_assistant_produces_and_its_end_of_turn(tokenizer: Any) -> None:
    rendered = tokenizer.apply_chat_template(
        CONVERSATION, tools=TOOLS, return_dict=True, return_assistant_tokens_mask=True
    )
    pairs = zip(rendered["input_ids"], rendered["assistant_masks"], strict=True)
    produced = tokenizer.decode([token for token, by_assistant in pairs if by_assistant])
    call = '<tool_call>{"name": "add", "arguments": {"terms": [1, 1]}}</tool_call>'
    assert produced == f"{call}<|im_end|>It is 2.<|im_end|>"


def test_model_has_learned_to_predict_text_that_it_never_read(model: Any, tokenizer: Any) -> None:
    rows = (ROOT / "examples" / "python_docs" / "heldout.jsonl").read_text("utf-8").splitlines()
    texts = [json.loads(row)["messages"][1]["content"] for row in rows[:100]]
    nats = 0.0
    for text in texts:
        ids_1T = torch.tensor([[tokenizer.pad_token_id, *tokenizer.encode(text)]])
        with torch.no_grad():
            nats += model(input_ids=ids_1T, labels=ids_1T).loss.item() * (ids_1T.shape[1] - 1)
    bits_per_byte = nats / math.log(2) / sum(len(text.encode()) for text in texts)
    assert bits_per_byte < BITS_PER_BYTE_BOUND, bits_per_byte
