"""llama.cpp as a peer: files that say what ours say, requests, the check before measuring."""

import json
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.numpy import load_file, save_file
from transformers import AutoModelForCausalLM

from bench.gguf_files import adapter_pairs, paired, write_adapter, write_base
from bench.llama_cpp import BINARY, CACHES, Cache, Slots, completion_requests, llama_server
from bench.serving_check import require_same_model, shortfall_nats
from tests.core.tiny import save_base, tiny_config, tiny_tokenizer

RANK = 4
PROMPTS = tuple(tuple(range(10 + number, 30 + number)) for number in range(6))
NEW_TOKENS = 12


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    save_base(folder)
    return folder


@pytest.fixture(scope="module")
def adapters(base: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two adapters on all linear layers, whose updates change the answers."""
    folders = []
    for seed in range(2):
        torch.manual_seed(seed)
        config = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear")
        tuned = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
        for name, weight in tuned.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=0.2)
        folders.append(tmp_path_factory.mktemp("adapter"))
        tuned.save_pretrained(folders[-1])
    return folders


@pytest.fixture(scope="module")
def reference(base: Path, adapters: list[Path]) -> PeftModel:
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    tuned = PeftModel.from_pretrained(model, adapters[0], adapter_name="a0")
    tuned.load_adapter(adapters[1], adapter_name="a1")
    return tuned.eval()


def read(file: Path) -> tuple[gguf.GGUFReader, dict[str, np.ndarray]]:
    reader = gguf.GGUFReader(file)
    return reader, {tensor.name: tensor.data for tensor in reader.tensors}


def greedy(reference: PeftModel, never: list[int] | None = None) -> list[list[int]]:
    """What the reference itself writes, one prompt at a time, with both adapters in turns."""
    answers = []
    for number, prompt in enumerate(PROMPTS):
        reference.set_adapter(f"a{number % 2}")
        ids_BT = reference.generate(
            input_ids=torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            max_new_tokens=NEW_TOKENS,
            suppress_tokens=never,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
        )
        answers.append(ids_BT[0, len(prompt) :].tolist())
    return answers


def of_other_adapter(answers: list[list[int]]) -> list[list[int]]:
    return [answers[1], answers[0], *answers[2:]]


def test_base_keeps_its_weights_under_the_names_of_llama_cpp(base: Path, tmp_path: Path) -> None:
    write_base(base, tmp_path / "base.gguf")
    reader, written = read(tmp_path / "base.gguf")
    weights = load_file(base / "model.safetensors")
    assert len(written) == len(weights)
    assert {data.dtype for data in written.values()} == {np.dtype(np.float32)}
    same = {
        "token_embd.weight": "model.embed_tokens.weight",
        "output.weight": "lm_head.weight",
        "output_norm.weight": "model.norm.weight",
        "blk.1.attn_v.weight": "model.layers.1.self_attn.v_proj.weight",
        "blk.1.ffn_down.weight": "model.layers.1.mlp.down_proj.weight",
    }
    for name, ours in same.items():
        np.testing.assert_array_equal(written[name], weights[ours])
    config = tiny_config("llama")
    assert reader.fields["llama.attention.head_count_kv"].contents() == config.num_key_value_heads
    assert reader.fields["llama.rope.dimension_count"].contents() == config.head_dim


def test_tokenizer_is_as_long_as_the_embedding(base: Path, tmp_path: Path) -> None:
    write_base(base, tmp_path / "base.gguf")
    fields = read(tmp_path / "base.gguf")[0].fields
    tokenizer = tiny_tokenizer()
    tokens = fields["tokenizer.ggml.tokens"].contents()
    assert len(tokens) == tiny_config("llama").vocab_size > len(tokenizer)
    assert tokens[: len(tokenizer)] == tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    assert fields["tokenizer.ggml.merges"].contents() == ["a b", "c d", "ab cd"]
    types = fields["tokenizer.ggml.token_type"].contents()
    assert types[tokenizer.eos_token_id] == gguf.TokenType.CONTROL
    assert types[-1] == gguf.TokenType.UNUSED


@pytest.mark.parametrize("projection", ["q_proj", "k_proj"])
def test_turning_neighbors_of_paired_rows_is_turning_halves(projection: str) -> None:
    """The score of a query and a key sums over positions, so their order in a head is free."""
    config = tiny_config("llama")
    heads = config.num_attention_heads if projection == "q_proj" else config.num_key_value_heads
    half = config.head_dim // 2
    random = np.random.default_rng(0)
    weight = random.normal(size=(heads * config.head_dim, config.hidden_size)).astype(np.float32)
    state = random.normal(size=config.hidden_size).astype(np.float32)
    angles = 0.3 * np.arange(half)
    cosines, sines = np.cos(angles), np.sin(angles)

    first, second = (weight @ state).reshape(heads, 2, half).swapaxes(0, 1)
    by_half = first * cosines - second * sines, second * cosines + first * sines
    reordered = paired(weight, f"model.layers.0.self_attn.{projection}.weight", config)
    even, odd = np.moveaxis((reordered @ state).reshape(heads, half, 2), -1, 0)
    by_neighbor = even * cosines - odd * sines, odd * cosines + even * sines

    np.testing.assert_allclose(by_neighbor, by_half, rtol=1e-5, atol=1e-5)


def test_adapter_keeps_its_matrices_and_alpha(
    base: Path, adapters: list[Path], tmp_path: Path
) -> None:
    write_adapter(adapters[0], base, tmp_path / "adapter.gguf")
    reader, written = read(tmp_path / "adapter.gguf")
    weights = load_file(adapters[0] / "adapter_model.safetensors")
    module = "base_model.model.model.layers.0.self_attn"
    config = tiny_config("llama")
    queries = paired(weights[f"{module}.q_proj.lora_B.weight"], "q_proj.weight", config)
    assert len(written) == len(weights) == 2 * 7 * config.num_hidden_layers
    np.testing.assert_array_equal(
        written["blk.0.attn_q.weight.lora_a"], weights[f"{module}.q_proj.lora_A.weight"]
    )
    np.testing.assert_array_equal(written["blk.0.attn_q.weight.lora_b"], queries)
    assert reader.fields["adapter.lora.alpha"].contents() == 2 * RANK


def test_adapters_that_llama_cpp_has_no_word_for_are_refused(
    base: Path, adapters: list[Path], tmp_path: Path
) -> None:
    settings = json.loads((adapters[0] / "adapter_config.json").read_text())
    weights = load_file(adapters[0] / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings | {"use_rslora": True}))
    save_file(weights, tmp_path / "adapter_model.safetensors")
    with pytest.raises(SystemExit, match="use_rslora"):
        write_adapter(tmp_path, base, tmp_path / "adapter.gguf")
    weights["base_model.model.lm_head.weight"] = np.zeros((2, 2), np.float32)
    with pytest.raises(SystemExit, match="not LoRA"):
        adapter_pairs(weights)


def test_requests_take_the_adapters_in_turns() -> None:
    bodies = [json.loads(body) for body in completion_requests(PROMPTS, NEW_TOKENS, adapters=2)]
    assert [body["prompt"] for body in bodies] == [list(prompt) for prompt in PROMPTS]
    assert [body["lora"][0]["id"] for body in bodies] == [0, 1, 0, 1, 0, 1]
    assert {body["lora"][0]["scale"] for body in bodies} == {1.0}
    assert all(body["ignore_eos"] and not body["cache_prompt"] for body in bodies)
    (body,) = completion_requests(PROMPTS[:1], NEW_TOKENS, adapters=0)
    assert json.loads(body)["lora"] == []


def test_requests_of_an_adapter_get_neighboring_slots() -> None:
    placed = [json.loads(body) for body in completion_requests(PROMPTS, NEW_TOKENS, adapters=4)]
    slots = {(body["id_slot"], body["lora"][0]["id"]) for body in placed}
    assert sorted(slots) == [(0, 0), (1, 0), (2, 1), (3, 1), (4, 2), (5, 3)]
    free = completion_requests(PROMPTS, NEW_TOKENS, adapters=4, placed=False)
    assert {json.loads(body)["id_slot"] for body in free} == {-1}


def test_nothing_is_measured_unless_both_write_the_likeliest_tokens(
    reference: PeftModel, capsys: pytest.CaptureFixture[str]
) -> None:
    ours, theirs = greedy(reference), greedy(reference, never=[reference.config.eos_token_id])
    same = sum(a == b for a, b in zip(ours, theirs, strict=True))
    require_same_model(reference, PROMPTS, 2, ours=ours, theirs=theirs)
    assert f"{same} of {len(PROMPTS)} answers" in capsys.readouterr().err
    with pytest.raises(SystemExit, match=r"llama\.cpp computes another model"):
        require_same_model(reference, PROMPTS, 2, ours=ours, theirs=of_other_adapter(theirs))
    with pytest.raises(SystemExit, match="Tunesmith computes another model"):
        require_same_model(reference, PROMPTS, 2, ours=of_other_adapter(ours), theirs=theirs)
    with pytest.raises(SystemExit, match="with 0 adapters"):
        require_same_model(reference, PROMPTS, 0, ours=ours, theirs=theirs)


@pytest.mark.skipif(not BINARY.is_file(), reason="`make llama-server` has not been run")
@pytest.mark.parametrize("cache", CACHES, ids=lambda cache: cache.name)
def test_llama_server_writes_what_peft_would(
    base: Path, adapters: list[Path], reference: PeftModel, cache: Cache
) -> None:
    tokenizer = tiny_tokenizer()
    ends = tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])
    slots = Slots(len(PROMPTS), len(PROMPTS[0]) + NEW_TOKENS, threads=1)
    with llama_server(BINARY, base, adapters, slots, cache) as server:
        alone = server.answer(completion_requests(PROMPTS, NEW_TOKENS, adapters=0))
        mixed = server.answer(completion_requests(PROMPTS, NEW_TOKENS, adapters=2))
    with reference.disable_adapter():
        assert shortfall_nats(reference, PROMPTS, alone, ends).max() <= cache.near_tie_nats
    for number in range(2):
        reference.set_adapter(f"a{number}")
        missing_BT = shortfall_nats(reference, PROMPTS[number::2], mixed[number::2], ends)
        assert missing_BT.max() <= cache.near_tie_nats
