"""Rejects references in a JSON schema that llguidance misreads or follows without end."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote, urljoin

from core.engine.text.schema_keywords import schemas, unfit

MAX_REFERENCES = 100
"""In a row."""


def refuse_repeated_ids(schema: Mapping[str, Any], param: str) -> None:
    """Reject a repeated $id: llguidance mistakes the inner schema for the outer one."""
    base = schema.get("$id")
    seen: set[str] = set()
    for part in schemas(schema):
        id_ = part.get("$id")
        if isinstance(id_, str):
            whole = urljoin(base, id_) if isinstance(base, str) else id_
            whole = whole.rstrip("#")
            if whole in seen:
                raise unfit(f"the $id {id_} occurs twice; remove the inner one", param)
            seen.add(whole)


def refuse_endless_references(root: Mapping[str, Any], param: str) -> None:
    """Reject circular references that never reach a schema with content."""
    for part in schemas(root):
        path: list[int] = []
        if _leads_back(part, root, path, set()):
            raise unfit(f"the $ref {part.get('$ref', '')} is circular and has no content", param)


def _leads_back(part: Any, root: Mapping[str, Any], path: list[int], ended: set[int]) -> bool:
    """Return whether the schemas that apply to the same value lead back to one on the path."""
    if not isinstance(part, Mapping) or id(part) in ended:
        return False
    if id(part) in path or len(path) == MAX_REFERENCES:
        return True
    path.append(id(part))
    following = []
    if isinstance(part.get("$ref"), str):
        following.append(_referred(part["$ref"], root))
    for key in ("allOf", "anyOf", "oneOf"):
        members = part.get(key)
        if isinstance(members, list):
            following += members
    found = any(_leads_back(each, root, path, ended) for each in following)
    path.pop()
    ended.add(id(part))
    return found


def _referred(reference: str, root: Mapping[str, Any]) -> Any:
    """Return the target of a JSON pointer; None for another reference or a missing target."""
    own = root.get("$id")
    if isinstance(own, str):
        reference = reference.removeprefix(own.rstrip("#"))
    if reference == "#":
        return root
    if not reference.startswith("#/"):
        return None
    part: Any = root
    for escaped in unquote(reference[2:]).split("/"):
        name = escaped.replace("~1", "/").replace("~0", "~")
        if isinstance(part, list) and name.isdecimal() and int(name) < len(part):
            part = part[int(name)]
        elif isinstance(part, Mapping):
            part = part.get(name)
        else:
            return None
    return part
