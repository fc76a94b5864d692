"""Tiny bases for the tests of the torch side; imports are late so that other tests stay light."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

CHATML = (
    "{% if tools %}<|im_start|>tools\n{{ tools | tojson }}<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}"
    "{% for c in m.get('tool_calls', []) %}[{{ c.function | tojson }}]{% endfor %}"
    "<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture
def chat_tokenizer() -> Any:
    """A byte-level BPE with a few merges, ChatML, and one token per other byte."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("a", "b"), ("c", "d"), ("ab", "cd")]
    vocabulary = {piece: i for i, piece in enumerate([*alphabet, "ab", "cd", "abcd"])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    specials = ["<|im_start|>", "<|im_end|>", "<|endoftext|>"]
    tokenizer.add_special_tokens([AddedToken(text, special=True) for text in specials])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=CHATML,
    )


@pytest.fixture(scope="session")
def tiny_model() -> Callable[..., Any]:
    """Return a builder: `tiny_model("qwen3", seed=1)` is a random model of that family."""
    import torch

    torch.set_num_threads(1)  # with more, threads that wait for each other outweigh the work

    def build(model_type: str = "llama", seed: int = 0, **changes: Any) -> Any:
        from transformers import AutoConfig, AutoModelForCausalLM

        size: dict[str, Any] = {
            "vocab_size": 320,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 8,
            "max_position_embeddings": 256,
            "initializer_range": 0.2,
            "bos_token_id": None,
            "eos_token_id": 257,
            "pad_token_id": None,
            "tie_word_embeddings": False,
        }
        config = AutoConfig.for_model(model_type, **(size | changes))
        torch.manual_seed(seed)
        return AutoModelForCausalLM.from_config(config).eval()

    return build


@pytest.fixture
def base_spec(tmp_path: Path, tiny_model: Callable[..., Any], chat_tokenizer: Any) -> Any:
    """A saved Llama base in a folder of its own."""
    from core.spec.run import BaseModelSpec

    folder = tmp_path / "base"
    tiny_model("llama").save_pretrained(folder)
    chat_tokenizer.save_pretrained(folder)
    return BaseModelSpec(id="tiny-test", source=str(folder))
