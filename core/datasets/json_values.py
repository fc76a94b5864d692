"""Names for JSON that has been read: only the keys of an object are known to be texts."""

from collections.abc import Mapping
from typing import Any, TypeAlias

Row: TypeAlias = Mapping[str, Any]
"""A row of a file, which nobody changes."""

JsonObject: TypeAlias = dict[str, Any]
"""A message, a tool, a call of one."""
