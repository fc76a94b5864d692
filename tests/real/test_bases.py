"""The bases are the models that they are named after."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

FACTS = {
    "What is the capital of France?": "Paris",
    "What is 2+2?": "4",
    "Who wrote Romeo and Juliet?": "William Shakespeare",
}

ENGLISH = """Last week my neighbour asked me to look after her dog while she visited her sister. \
The dog refused to walk past the bakery on the corner, because the owner once dropped a tray of \
bread rolls there with a terrible noise. So every morning we took the long way round, along the \
canal and past the old mill, and I began to enjoy the quiet, the herons and the slow boats."""


def test_smollm2_knows_facts_and_english(smollm2: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    model = AutoModelForCausalLM.from_pretrained(smollm2).eval()
    assert model.dtype == torch.float32
    for question, fact in FACTS.items():
        prompt = tokenizer.apply_chat_template(
            [{"role": "user", "content": question}],
            add_generation_prompt=True,
            return_tensors="pt",
            return_dict=True,
        )
        answer = model.generate(**prompt, max_new_tokens=24, do_sample=False)
        assert fact in tokenizer.decode(answer[0, prompt["input_ids"].shape[1] :])
    ids = tokenizer(ENGLISH, return_tensors="pt").input_ids
    with torch.inference_mode():
        right = model(input_ids=ids, labels=ids).loss.exp()
        scrambled_ids = ids[:, torch.randperm(ids.shape[1])]
        scrambled = model(input_ids=scrambled_ids, labels=scrambled_ids).loss.exp()
    assert right < 80 < 10 * right < scrambled


def test_smollm2_reads_text_as_it_was_trained_to(smollm2: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    assert tokenizer.model_max_length == 8192
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<|im_start|>", "<|im_end|>")
    assert tokenizer("Hello").input_ids == [19556]  # nothing is put before a text
    # digits are pieces of their own, so that the spaces before them stay together
    assert tokenizer.tokenize("in  2024") == ["in", "ĠĠ", "2", "0", "2", "4"]
    for text in ("a  b\n\n\tc 12", "Ünïcödé 漢字 🎉", "<|im_start|>user\nHi<|im_end|>\n"):
        assert tokenizer.decode(tokenizer(text).input_ids) == text
    assert tokenizer("<|im_end|>").input_ids == [2]


def test_minilm_puts_like_next_to_like(minilm: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(minilm)
    model = AutoModel.from_pretrained(minilm).eval()
    texts = ["A man is eating food.", "Someone eats a meal.", "The stock market fell today."]
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    with torch.inference_mode():
        states_BTD = model(**batch).last_hidden_state
    real_BT1 = batch["attention_mask"][..., None]
    means_BD = torch.nn.functional.normalize((states_BTD * real_BT1).sum(1) / real_BT1.sum(1))
    likeness = means_BD @ means_BD.T
    assert likeness[0, 1] == pytest.approx(0.761, abs=0.01)
    assert likeness[0, 2].abs() < 0.1
