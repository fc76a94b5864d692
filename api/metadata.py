"""OpenAI's metadata: pairs of strings on an object, and the filter of lists by them."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field, StringConstraints
from starlette.datastructures import QueryParams

from core.errors import InvalidRequest

MAX_PAIRS = 16

NO_NUL = r"^[^\x00]*$"
"""Postgres stores no NUL."""

Metadata = Annotated[
    dict[
        Annotated[str, StringConstraints(max_length=64, pattern=NO_NUL)],
        Annotated[str, StringConstraints(max_length=512, pattern=NO_NUL)],
    ],
    Field(max_length=MAX_PAIRS),
]


@dataclass(frozen=True)
class MetadataFilter:
    """Selects objects with all `pairs`, or objects without any."""

    pairs: dict[str, str]
    none: bool


def metadata_filter(query: QueryParams) -> MetadataFilter:
    """Read `metadata[key]=value` (up to 16 keys) and `metadata=null`."""
    start, end = "metadata[", "]"
    pairs = {
        name[len(start) : -len(end)]: value
        for name, value in query.items()
        if name.startswith(start) and name.endswith(end)
    }
    if len(pairs) > MAX_PAIRS:
        raise InvalidRequest(
            f"The filter has {len(pairs)} pairs; an object has at most {MAX_PAIRS}.",
            param="metadata",
        )
    return MetadataFilter(pairs, none=query.get("metadata") == "null")
