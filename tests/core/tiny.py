"""Random models of every family in miniature, and bases in folders, built in code.

No dropout, so that losses can be compared with those of other loops; windows of 16 tokens, so that
they are shorter than the texts of tests; tied embeddings where the family's own models tie them.
"""

from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from core.catalog.families import FAMILIES
from core.catalog.family import Kind
from core.spec.base_model import BaseModelSpec

CHATML = (
    "{% if tools %}<|im_start|>tools\n{{ tools | tojson }}<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}"
    "{% for c in m.get('tool_calls', []) %}[{{ c.function | tojson }}]{% endfor %}"
    "<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def _families(kind: Kind) -> tuple[str, ...]:
    return tuple(name for name, family in FAMILIES.items() if family.kind == kind)


DECODERS = _families("decoder")
ENCODERS = _families("encoder")
ENCODER_DECODERS = _families("encoder-decoder")

_DECODER_SIZE: dict[str, Any] = {
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
_GEMMA = _DECODER_SIZE | {
    "query_pre_attn_scalar": 8,
    "sliding_window": 16,
    "layer_types": ["sliding_attention", "full_attention"],
    "tie_word_embeddings": True,
}
_ENCODER_SIZE: dict[str, Any] = {
    "vocab_size": 320,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
    "initializer_range": 0.2,
    "pad_token_id": 0,
}
_SIZES: dict[str, dict[str, Any]] = {
    "gemma2": _GEMMA,
    "gemma3_text": _GEMMA,
    "phi3": {key: value for key, value in _DECODER_SIZE.items() if key != "head_dim"},
    "gpt2": {
        "vocab_size": 320,
        "n_embd": 32,
        "n_layer": 2,
        "n_head": 4,
        "n_inner": 48,
        "n_positions": 256,
        "resid_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "attn_pdrop": 0.0,
        "initializer_range": 0.2,
        "bos_token_id": None,
        "eos_token_id": 257,
    },
    "t5": {
        "vocab_size": 320,
        "d_model": 32,
        "d_kv": 8,
        "d_ff": 48,
        "num_layers": 2,
        "num_heads": 4,
        "dropout_rate": 0.0,
        "decoder_start_token_id": 0,
    },
    "bart": {
        "vocab_size": 320,
        "d_model": 32,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 4,
        "encoder_ffn_dim": 48,
        "decoder_ffn_dim": 48,
        "max_position_embeddings": 256,
        "dropout": 0.0,
        "init_std": 0.2,
    },
    "bert": _ENCODER_SIZE | {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0},
    "modernbert": _ENCODER_SIZE
    | {
        "local_attention": 16,
        "layer_types": ["full_attention", "sliding_attention"],
        "bos_token_id": 2,
        "cls_token_id": 2,
        "eos_token_id": 3,
        "sep_token_id": 3,
    },
}


def tiny_config(model_type: str, **changes: Any) -> PreTrainedConfig:
    """Return the configuration of a family in miniature."""
    size = _SIZES.get(model_type, _DECODER_SIZE)
    return AutoConfig.for_model(model_type, **(size | changes))


def tiny_model(
    model_type: str = "llama", seed: int = 0, labels: int | None = None, **changes: Any
) -> PreTrainedModel:
    """Return a random model of a family as its bases are published: decoders with their language
    head, encoders with that of masked words. With `labels`, one that classifies."""
    torch.set_num_threads(1)  # with more, threads that wait for each other outweigh the work
    if labels is not None:
        changes["num_labels"] = labels
    config = tiny_config(model_type, **changes)
    if labels is not None:
        model_class: Any = AutoModelForSequenceClassification
    elif model_type in ENCODER_DECODERS:
        model_class = AutoModelForSeq2SeqLM
    else:
        model_class = AutoModelForMaskedLM if model_type in ENCODERS else AutoModelForCausalLM
    torch.manual_seed(seed)
    model: PreTrainedModel = model_class.from_config(config)
    return model.eval()


def chat_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE with a few merges, ChatML, and one token per other byte."""
    specials = ("<|im_start|>", "<|im_end|>", "<|endoftext|>")
    return PreTrainedTokenizerFast(
        tokenizer_object=_bytes_tokenizer(first=(), last=specials),
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=CHATML,
    )


def tiny_tokenizer(model_type: str = "llama") -> PreTrainedTokenizerFast:
    """Return a tokenizer with the special tokens of the family; decoders speak ChatML."""
    match model_type:
        case "t5":
            names = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
            around = "$A </s>", "$A </s> $B </s>"
        case "bart":
            names = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>"}
            names |= {"unk_token": "<unk>", "cls_token": "<s>", "sep_token": "</s>"}
            around = "<s> $A </s>", "<s> $A </s> </s> $B </s>"
        case "bert" | "modernbert":
            names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]"}
            names |= {"sep_token": "[SEP]", "mask_token": "[MASK]"}
            around = "[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1"
        case _:
            return chat_tokenizer()
    specials = tuple(dict.fromkeys(names.values()))
    tokenizer = _bytes_tokenizer(first=specials, last=())
    tokenizer.post_processor = processors.TemplateProcessing(
        single=around[0], pair=around[1], special_tokens=list(zip(specials, range(9), strict=False))
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


def _bytes_tokenizer(first: tuple[str, ...], last: tuple[str, ...]) -> Tokenizer:
    """Return a tokenizer of bytes whose special tokens have the first ids, and the last ones."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("a", "b"), ("c", "d"), ("ab", "cd")]
    pieces = [*first, *alphabet, "ab", "cd", "abcd"]
    tokenizer = Tokenizer(models.BPE(vocab={p: i for i, p in enumerate(pieces)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(text, special=True) for text in (*first, *last)])
    return tokenizer


def save_base(
    folder: Path, model_type: str = "llama", seed: int = 0, **changes: Any
) -> BaseModelSpec:
    """Write a tiny base with its tokenizer into a folder."""
    tiny_model(model_type, seed, **changes).save_pretrained(folder)
    tiny_tokenizer(model_type).save_pretrained(folder)
    return BaseModelSpec(id=f"tiny-{model_type}", source=str(folder))
