"""Texts to embed as token ids, within the limits of the requested model."""

from typing import cast

from core.engine.text.prompt_tokens import require_known, require_lengths, text_tokens
from core.engine.text.served_model import ServedModel
from core.errors import InvalidRequest
from core.models.embedder import Embedder
from core.spec.base_model import BaseModelSpec
from core.spec.embedding import EmbeddingRequest, PoolingSpec, Texts, TokenLists

_OF_ANOTHER_VOCABULARY = (
    " Send texts, or ids of this model. LangChain's OpenAIEmbeddings sends texts with "
    "check_embedding_ctx_length=False."
)


def require_embedder(base: BaseModelSpec, embedder: Embedder | None) -> Embedder:
    """Return the embedder of a base; InvalidRequest `not_an_embedder` if it has none."""
    if embedder is None:
        raise _not_an_embedder(
            f"The base model {base.id} is not made to embed texts. Use an encoder, or a decoder "
            "whose folder has the modules.json of sentence-transformers."
        )
    return embedder


def embedding_tokens(
    texts: Texts | TokenLists, embedder: Embedder, model: ServedModel
) -> TokenLists:
    """Return the token ids of texts; those given as ids are used unchanged.

    Raises InvalidRequest for a text that is empty or too long, or for an unknown token.
    """
    longest = min(model.longest_prompt, embedder.max_tokens or model.longest_prompt)
    if isinstance(texts[0], str):
        plain = cast(Texts, texts)
        if embedder.lowers_case:
            plain = tuple(text.lower() for text in plain)
        tokens = text_tokens(plain, model)
    else:
        tokens = cast(TokenLists, texts)
        for each in tokens:
            require_known(each, "input", model, hint=_OF_ANOTHER_VOCABULARY)
    require_lengths(tokens, longest, model)
    return tokens


def vector_of(asked: EmbeddingRequest, embedder: Embedder, model: ServedModel) -> PoolingSpec:
    """Return how the vectors are made.

    Raises InvalidRequest for a tuned model that embeds nothing, and for too many dimensions.
    """
    if model.key.task != "classification":
        raise _not_an_embedder(
            "This tuned model generates text. Use its base, or a tuned classifier on an encoder."
        )
    if asked.dimensions is not None and asked.dimensions > embedder.dimensions:
        raise InvalidRequest(
            f"The vectors of {model.base_id} have {embedder.dimensions} dimensions; "
            f"{asked.dimensions} were requested. Request fewer, or none.",
            param="dimensions",
            code="invalid_value",
        )
    return PoolingSpec(
        mode=embedder.mode, is_normalized=embedder.is_normalized, dimensions=asked.dimensions
    )


def _not_an_embedder(message: str) -> InvalidRequest:
    return InvalidRequest(message, param="model", code="not_an_embedder")
