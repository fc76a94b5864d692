"""A JSON schema as a grammar can follow it: bounded in cost, with numbers that it can count."""

from collections.abc import Mapping
from typing import Any

from core.engine.text.schema_cost import refuse_too_costly
from core.engine.text.schema_numbers import countable
from core.engine.text.schema_references import refuse_endless_references, refuse_repeated_ids


def fitted(schema: Mapping[str, Any], param: str) -> dict[str, Any]:
    """Return a schema with bounds that can be counted; InvalidRequest for one that costs too much.

    A bound that no answer should reach is drawn in, never out.
    """
    refuse_too_costly([schema], param)
    refuse_repeated_ids(schema, param)
    refuse_endless_references(schema, param)
    return countable(schema, param)
