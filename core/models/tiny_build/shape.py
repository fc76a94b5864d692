"""The sizes of the tiny base."""

from transformers import LlamaConfig

VOCABULARY_SIZE = 4096
CONTEXT_TOKENS = 1024


def model_config(document_end_id: int, turn_end_id: int) -> LlamaConfig:
    """A Llama of 4.2 million parameters, its input and output embeddings shared."""
    return LlamaConfig(
        vocab_size=VOCABULARY_SIZE,
        hidden_size=256,
        intermediate_size=768,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT_TOKENS,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=turn_end_id,
        pad_token_id=document_end_id,
    )
