"""Random models of the families that GGUF knows, in folders as they are published."""

import io
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, normalizers
from transformers import AutoTokenizer, GemmaTokenizer, LlamaTokenizer, PreTrainedModel

import core.models
from tests.core.tiny import tiny_model

TINY = Path(core.models.__file__).parent / "tiny"
SIZES = {"hidden_size": 256, "intermediate_size": 512, "initializer_range": 0.06}
"""llama.cpp quantizes 256 weights at a time."""
PIECES = ("gemma2", "gemma3_text", "phi3")
"""Families whose tokenizers are pieces of SentencePiece."""

_SLIDING, _FULL = "sliding_attention", "full_attention"
_OWN: dict[str, dict[str, Any]] = {
    "gemma2": {"query_pre_attn_scalar": 64},
    "gemma3_text": {
        "query_pre_attn_scalar": 64,
        "num_hidden_layers": 6,
        "layer_types": [_SLIDING] * 5 + [_FULL],
    },
}
"""What llama.cpp takes for granted of a family."""

_PHI = (
    "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
_GEMMA = (
    "{{ bos_token }}{% for m in messages %}<start_of_turn>"
    "{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n{{ m['content'] | trim }}"
    "<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)


def save_model(folder: Path, family: str, **changes: Any) -> PreTrainedModel:
    """Save a random model with a tokenizer of its family's kind, and return it in fp32."""
    if family in PIECES:
        tokenizer = save_pieces(folder, family)
    else:
        tokenizer = AutoTokenizer.from_pretrained(TINY)
    heads = {} if family == "phi3" else {"head_dim": 64}
    ends = {"eos_token_id": tokenizer.eos_token_id, "bos_token_id": tokenizer.bos_token_id}
    vocabulary = {"vocab_size": 64 * -(-len(tokenizer) // 64)}
    own = _OWN.get(family, {})
    model = tiny_model(family, **(SIZES | heads | ends | vocabulary | own | changes))
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)
    return model


def save_pieces(folder: Path, family: str) -> Any:
    """Train pieces on the corpus of the tiny base, save `tokenizer.model`, return the tokenizer."""
    import sentencepiece

    written = io.BytesIO()
    gemma = family != "phi3"
    marks = ("<bos>", "<eos>") if gemma else ("<s>", "</s>")
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter((TINY / "corpus.txt").read_text(encoding="utf-8").splitlines()),
        model_writer=written,
        model_type="bpe",
        vocab_size=1200,
        byte_fallback=True,
        split_digits=True,
        allow_whitespace_only_pieces=True,
        remove_extra_whitespaces=False,
        normalization_rule_name="identity",
        add_dummy_prefix=not gemma,
        pad_id=0,
        eos_id=1,
        bos_id=2,
        unk_id=3,
        bos_piece=marks[0],
        eos_piece=marks[1],
        control_symbols=["<start_of_turn>", "<end_of_turn>"],
        minloglevel=2,
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.model").write_bytes(written.getvalue())
    kind: Any = GemmaTokenizer if gemma else LlamaTokenizer
    tokenizer = kind.from_pretrained(folder)
    tokenizer.chat_template = _GEMMA if gemma else _PHI
    if not gemma:
        _as_published_phi(tokenizer)
    return tokenizer


def _as_published_phi(tokenizer: Any) -> None:
    """Special tokens swallow the line break after them, and a space begins every text."""
    marks = ("<|user|>", "<|assistant|>", "<|end|>")
    end = AddedToken("<|endoftext|>", special=True, normalized=False)
    swallowing = (AddedToken(m, special=True, normalized=False, rstrip=True) for m in marks)
    tokenizer.add_tokens([end, *swallowing])
    steps = [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    tokenizer.backend_tokenizer.normalizer = normalizers.Sequence(steps)
    tokenizer.backend_tokenizer.pre_tokenizer = None


@torch.no_grad()
def log_probabilities(model: Any, tokens: tuple[int, ...]) -> list[float]:
    """Return the log-probability of every token but the first."""
    ids = torch.tensor(tokens)
    logprobs = model(input_ids=ids[None]).logits[0, :-1].float().log_softmax(-1)
    return logprobs.gather(1, ids[1:, None])[:, 0].tolist()
