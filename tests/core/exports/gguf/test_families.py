"""Every family as llama.cpp runs it, beside transformers: weights, positions, windows, adapters."""

from statistics import fmean

import peft
import pytest
import torch

from core.exports.gguf.read import Row, score
from core.exports.gguf.support import FAMILIES
from core.exports.gguf.write import write_adapter, write_model
from tests.core.exports.gguf.models import log_probabilities, save_model

ROW = Row(tuple(int(token) for token in torch.arange(100, 900, 17) * 7 % 1000), tuple(range(1, 48)))
DISTANCE = {"f16": 0.004, "q8_0": 0.03, "q4_k_m": 0.3}
"""Mean difference of log-probabilities in nats; of random weights, which round worst."""


def distance(one, other):
    return fmean(abs(a - b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_and_its_adapter_say_the_same_in_llama_cpp(family, llama_cpp, tmp_path):
    base, file = tmp_path / "base", tmp_path / "base.gguf"
    model = save_model(base, family)
    assert write_model(llama_cpp, base, base, file) == ()
    plain = log_probabilities(model, ROW.tokens)
    assert distance(score(llama_cpp, file, [ROW])[0].logprobs, plain) < DISTANCE["f16"]

    tuned = adapted(model, tmp_path / "adapter")
    write_adapter(llama_cpp, tmp_path / "adapter", base, tmp_path / "adapter.gguf")
    wanted = log_probabilities(tuned, ROW.tokens)
    (found,) = score(llama_cpp, file, [ROW], tmp_path / "adapter.gguf")
    assert distance(found.logprobs, wanted) < 2 * DISTANCE["f16"]
    assert distance(plain, wanted) > 20 * DISTANCE["f16"]  # it does something


def adapted(model, folder):
    """Return a model with rsLoRA, and ranks and alphas of their own, none of which GGUF has."""
    config = peft.LoraConfig(
        r=4,
        lora_alpha=6,
        use_rslora=True,
        rank_pattern={r"layers\.1\..*": 2},
        alpha_pattern={"down_proj": 3},
        target_modules="all-linear",
    )
    tuned = peft.get_peft_model(model, config)
    torch.manual_seed(1)
    for name, weight in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.02)
    tuned.save_pretrained(folder)
    return tuned.eval()


@pytest.mark.parametrize("quantization", ["q8_0", "q4_k_m"])
def test_quantized_models_are_close(quantization, llama_cpp, tmp_path):
    model = save_model(tmp_path / "base", "qwen3")
    file = tmp_path / "base.gguf"
    write_model(llama_cpp, tmp_path / "base", tmp_path / "base", file, quantization)
    (found,) = score(llama_cpp, file, [ROW])
    far = distance(found.logprobs, log_probabilities(model, ROW.tokens))
    assert DISTANCE["f16"] < far < DISTANCE[quantization]


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        (
            "llama",
            {
                "rope_parameters": {
                    "rope_type": "llama3",
                    "rope_theta": 10_000.0,
                    "factor": 8.0,
                    "low_freq_factor": 1.0,
                    "high_freq_factor": 4.0,
                    "original_max_position_embeddings": 32,
                }
            },
        ),
        ("llama", {"tie_word_embeddings": True}),
        ("llama", {"attention_bias": True, "mlp_bias": False}),
        ("qwen2", {"tie_word_embeddings": True}),
    ],
    ids=["rope of Llama 3", "tied", "biases", "tied Qwen 2"],
)
def test_variants_of_families(family, changes, llama_cpp, tmp_path):
    model = save_model(tmp_path / "base", family, **changes)
    write_model(llama_cpp, tmp_path / "base", tmp_path / "base", tmp_path / "base.gguf")
    (found,) = score(llama_cpp, tmp_path / "base.gguf", [ROW])
    assert distance(found.logprobs, log_probabilities(model, ROW.tokens)) < DISTANCE["f16"]
