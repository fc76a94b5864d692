"""The benchmark's Llama, its tokenizer and its LoRA adapters as GGUF, llama.cpp's file format.

All weights stay in fp32, so that both sides compute the same model. Shapes: V vocabulary,
I inputs, O outputs, R rank.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import gguf
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file
from transformers import AutoConfig, AutoTokenizer, LlamaConfig

Matrix = NDArray[np.float32]


def write_base(folder: Path, file: Path) -> None:
    """Write a Llama of a Hugging Face folder, with its byte-level BPE tokenizer."""
    config = AutoConfig.from_pretrained(folder)
    writer = gguf.GGUFWriter(file, gguf.MODEL_ARCH_NAMES[gguf.MODEL_ARCH.LLAMA])
    _add_sizes(writer, config)
    _add_tokenizer(writer, folder, config.vocab_size)
    for name, weight in load_file(folder / "model.safetensors").items():
        writer.add_tensor(gguf_name(name, config), paired(weight, name, config))
    _write(writer)


def write_adapter(folder: Path, base_folder: Path, file: Path) -> None:
    """Write a LoRA adapter of a PEFT folder; llama.cpp scales its update by alpha / rank."""
    config = AutoConfig.from_pretrained(base_folder)
    settings = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    _require_plain_lora(settings)
    writer = gguf.GGUFWriter(file, gguf.MODEL_ARCH_NAMES[gguf.MODEL_ARCH.LLAMA])
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, settings["lora_alpha"])
    weights = load_file(folder / "adapter_model.safetensors")
    for name, (a_RI, b_OR) in adapter_pairs(weights).items():
        stem = gguf_name(name, config)
        writer.add_tensor(f"{stem}.lora_a", a_RI)
        writer.add_tensor(f"{stem}.lora_b", paired(b_OR, name, config))
    _write(writer)


def gguf_name(name: str, config: LlamaConfig) -> str:
    """Return llama.cpp's name for a weight of transformers."""
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    found = names.get_name(name, try_suffixes=(".weight",))
    if found is None:
        raise SystemExit(f"llama.cpp's Llama has no weight for {name}.")
    return found


def paired(weight: Matrix, name: str, config: LlamaConfig) -> Matrix:
    """Reorder the output rows of queries and keys for llama.cpp's rotary embeddings.

    transformers rotates position n of a head with position n of its other half, llama.cpp two
    neighbors.
    """
    if name.endswith("q_proj.weight"):
        heads = config.num_attention_heads
    elif name.endswith("k_proj.weight"):
        heads = config.num_key_value_heads
    else:
        return weight
    by_half = weight.reshape(heads, 2, -1, weight.shape[1])
    return np.ascontiguousarray(by_half.swapaxes(1, 2).reshape(weight.shape))


def adapter_pairs(weights: Mapping[str, Matrix]) -> dict[str, tuple[Matrix, Matrix]]:
    """Return (a_RI, b_OR) by the name of the base's weight that they change."""
    ends = ".lora_A.weight"
    pairs = {}
    for name, a_RI in weights.items():
        if name.endswith(ends):
            module = name.removesuffix(ends)
            weight = f"{module.removeprefix('base_model.model.')}.weight"
            pairs[weight] = a_RI, weights[f"{module}.lora_B.weight"]
    if 2 * len(pairs) != len(weights):
        raise SystemExit("The adapter has weights that are not LoRA matrices.")
    return pairs


def _require_plain_lora(settings: Mapping[str, object]) -> None:
    """Check that the adapter has one alpha and one scaling, as GGUF requires."""
    for key in ("rank_pattern", "alpha_pattern", "use_rslora", "use_dora"):
        if settings.get(key):
            raise SystemExit(f"llama.cpp does not support adapters with {key}.")


def _add_sizes(writer: gguf.GGUFWriter, config: LlamaConfig) -> None:
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])


def _add_tokenizer(writer: gguf.GGUFWriter, folder: Path, vocabulary: int) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    token_texts = {token_id: token for token, token_id in tokenizer.get_vocab().items()}
    types = [gguf.TokenType.UNUSED] * vocabulary
    for token_id in token_texts:
        types[token_id] = gguf.TokenType.NORMAL
    for token_id in tokenizer.all_special_ids:
        types[token_id] = gguf.TokenType.CONTROL
    writer.add_tokenizer_model("gpt2")  # llama.cpp's word for byte-level BPE
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([token_texts.get(n, f"[unused{n}]") for n in range(vocabulary)])
    writer.add_token_types(types)
    gguf.SpecialVocab(folder, load_merges=True).add_to_gguf(writer, quiet=True)
    writer.add_add_bos_token(False)


def _write(writer: gguf.GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
