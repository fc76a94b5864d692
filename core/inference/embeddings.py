"""OpenAI's embeddings: a body becomes engine requests, and their answers one list of vectors."""

import sys
from array import array
from base64 import b64decode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, cast

from pydantic import Discriminator, Field, Tag

from core.inference.schemas import Body, Text, TokenIds, prompt_type
from core.inference.targets import Target
from core.records.ids import new_id
from core.spec.embedding import EmbeddingAnswer, EmbeddingRequest, Texts, TokenLists
from core.spec.ids import ModelId, ProjectId

MAX_INPUTS = 2048
MAX_DIMENSIONS = 65_536

TEXTS_PER_REQUEST = 64
"""Of an engine request: two steps of an engine, so that a large body does not fill its queue."""

Input = Annotated[
    Annotated[Text, Tag("text")]
    | Annotated[list[Text], Field(fail_fast=True, max_length=MAX_INPUTS), Tag("texts")]
    | Annotated[TokenIds, Tag("tokens")]
    | Annotated[list[TokenIds], Field(fail_fast=True, max_length=MAX_INPUTS), Tag("token lists")],
    Discriminator(prompt_type),
]

EncodingFormat = Literal["float", "base64"]


class EmbeddingBody(Body):
    """`CreateEmbeddingRequest`. Null means the same as a missing field.

    Token ids are those of the model's own vocabulary.
    """

    model: Annotated[ModelId, Field(min_length=1, max_length=512, pattern=r"^[^\x00]*$")]
    input: Input
    dimensions: Annotated[int, Field(ge=1, le=MAX_DIMENSIONS)] | None = None
    encoding_format: EncodingFormat | None = None
    user: str | None = None
    """Accepted and ignored."""


@dataclass(frozen=True)
class EmbeddingPlan:
    """One list of vectors: its model, and the engine requests for consecutive texts."""

    model: ModelId
    requests: Sequence[EmbeddingRequest]
    encoding_format: EncodingFormat


def plan_embeddings(target: Target, project: ProjectId, body: EmbeddingBody) -> EmbeddingPlan:
    """Return the plan of a body for a model that was found by its name."""
    texts, id_ = _texts(body.input), new_id("embd")
    starts = range(0, len(texts), TEXTS_PER_REQUEST)
    return EmbeddingPlan(
        model=target.id,
        requests=[
            EmbeddingRequest(
                id=f"{id_}-{number}",
                base=target.base,
                adapter=target.adapter,
                serving=target.serving,
                texts=texts[start : start + TEXTS_PER_REQUEST],
                dimensions=body.dimensions,
                project=project,
            )
            for number, start in enumerate(starts)
        ],
        encoding_format=body.encoding_format or "float",
    )


def embedding_items(
    plan: EmbeddingPlan, answers: Sequence[EmbeddingAnswer]
) -> Iterator[dict[str, Any]]:
    """Yield the object of each text, in the order of the input; `answers` are those of the plan."""
    vectors = (vector for answer in answers for vector in answer.vectors)
    for index, vector in enumerate(vectors):
        embedding = vector if plan.encoding_format == "base64" else _floats(vector)
        yield {"object": "embedding", "index": index, "embedding": embedding}


def embedding_frame(plan: EmbeddingPlan, answers: Sequence[EmbeddingAnswer]) -> dict[str, Any]:
    """Return OpenAI's object without its `data`."""
    tokens = sum(answer.tokens for answer in answers)
    return {
        "object": "list",
        "model": plan.model,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }


def embedding_list(plan: EmbeddingPlan, answers: Sequence[EmbeddingAnswer]) -> dict[str, Any]:
    """Return OpenAI's object: the vectors of all texts, and the usage."""
    return {**embedding_frame(plan, answers), "data": list(embedding_items(plan, answers))}


def _texts(given: str | list[str] | list[int] | list[list[int]]) -> Texts | TokenLists:
    if isinstance(given, str):
        return (given,)
    if isinstance(given[0], str):
        return tuple(cast(list[str], given))
    if isinstance(given[0], int):
        return (tuple(cast(list[int], given)),)
    return tuple(map(tuple, cast(list[list[int]], given)))


def _floats(vector: str) -> list[float]:
    """Return the elements of a vector; base64 has them as little-endian 32-bit floats."""
    elements = array("f", b64decode(vector))
    if sys.byteorder == "big":
        elements.byteswap()
    return elements.tolist()
