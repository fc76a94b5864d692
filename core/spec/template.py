"""Variables of chat templates, as jobs and requests give them: `chat_template_kwargs`."""

import json
from typing import Annotated, Any

from pydantic import AfterValidator, Field

MAX_VARIABLES = 32
MAX_CHARACTERS = 16_384
"""Of all variables, written as JSON."""

RESERVED = frozenset(
    ("messages", "tools", "documents", "add_generation_prompt", "strftime_now", "raise_exception")
)
"""What the server passes to every template itself."""


def _checked(variables: dict[str, Any]) -> dict[str, Any]:
    taken = sorted(name for name in variables if name in RESERVED or name.endswith("_token"))
    if taken:
        raise ValueError(f"{taken[0]!r} is set by the server and cannot be given")
    if len(json.dumps(variables)) > MAX_CHARACTERS:
        raise ValueError(f"the variables have more than {MAX_CHARACTERS} characters as JSON")
    return variables


TemplateVariables = Annotated[
    dict[str, Any], Field(max_length=MAX_VARIABLES), AfterValidator(_checked)
]
"""Named values for a chat template, such as `{"enable_thinking": false}`."""
