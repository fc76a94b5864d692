"""Rejects tools that OpenAI's service runs itself, before the other fields are validated.

Such tools have fields of their own, which would be reported as unknown.
"""

from core.errors import InvalidRequest


def refuse_built_in_tools(body: object) -> None:
    """Raise InvalidRequest for a tool that is not a function, in `tools` or `tool_choice`."""
    if not isinstance(body, dict):
        return
    tools = body.get("tools")
    for index, tool in enumerate(tools if isinstance(tools, list) else ()):
        _require_function(tool, f"tools[{index}]")
    choice = body.get("tool_choice")
    if not isinstance(choice, dict):
        return
    if choice.get("type") != "allowed_tools":
        _require_function(choice, "tool_choice")
        return
    allowed = choice.get("tools")
    for index, tool in enumerate(allowed if isinstance(allowed, list) else ()):
        _require_function(tool, f"tool_choice.tools[{index}]")


def _require_function(tool: object, where: str) -> None:
    kind = tool.get("type") if isinstance(tool, dict) else None
    if not isinstance(kind, str) or kind == "function":
        return  # the schema names what else is wrong
    raise InvalidRequest(
        f"Tools of type {kind[:64]!r} are not supported. Only functions, which the client runs, "
        "can be called: use type 'function'.",
        param=where,
        code="unsupported_tool",
    )
