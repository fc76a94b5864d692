"""Prepares a JSON schema for a grammar: bounded cost, and bounds that llguidance supports."""

from collections.abc import Mapping
from typing import Any

from core.engine.text.schema_cost import refuse_too_costly
from core.engine.text.schema_numbers import countable
from core.engine.text.schema_references import refuse_endless_references, refuse_repeated_ids


def fitted(schema: Mapping[str, Any], param: str) -> dict[str, Any]:
    """Return a schema with supported bounds; InvalidRequest if it costs too much.

    Bounds are only ever tightened.
    """
    refuse_too_costly([schema], param)
    refuse_repeated_ids(schema, param)
    refuse_endless_references(schema, param)
    return countable(schema, param)
