"""The tokenizer of the tiny base: byte-level BPE, so that any text has an exact encoding."""

from collections.abc import Iterable

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from core.models.tiny_build.shape import CONTEXT_TOKENS, VOCABULARY_SIZE

DOCUMENT_END, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
# One token each, but part of the text: a client that reads tool calls must see them.
TOOL_CALL_MARKS = ("<tool_call>", "</tool_call>")


def train_tokenizer(texts: Iterable[str], chat_template: str) -> PreTrainedTokenizerFast:
    """Learn the vocabulary from `texts`."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special_tokens = [DOCUMENT_END, TURN_START, TURN_END]
    marks = [AddedToken(mark, special=False, normalized=False) for mark in TOOL_CALL_MARKS]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE - len(marks),
        special_tokens=special_tokens,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_tokens(marks)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=TURN_END,
        pad_token=DOCUMENT_END,
        additional_special_tokens=[TURN_START],
        chat_template=chat_template,
        clean_up_tokenization_spaces=False,
        model_max_length=CONTEXT_TOKENS,
    )
