"""The tools of a chat in one form, whichever of OpenAI's three forms a request has.

The older `functions` and `function_call` become tools and a tool choice. With `allowed_tools`, only
the allowed tools are offered.
"""

from core.errors import InvalidRequest
from core.inference.schemas import (
    AllowedToolsChoice,
    ChatBody,
    ChosenFunction,
    ChosenTool,
    Tool,
    ToolChoice,
)
from core.spec.nearest import did_you_mean


def with_tools(body: ChatBody) -> ChatBody:
    """Return a body with `tools` and a `tool_choice` that is a mode or one tool.

    Raises InvalidRequest for a choice that is not offered, and for functions beside tools.
    """
    if body.functions or isinstance(body.function_call, ChosenFunction):
        return _from_functions(body)
    if isinstance(body.tool_choice, AllowedToolsChoice):
        return _allowed(body, body.tool_choice)
    return body


def _from_functions(body: ChatBody) -> ChatBody:
    if body.tools or body.tool_choice is not None:
        raise InvalidRequest(
            "functions and function_call are the older form of tools and tool_choice; use only one "
            "of the two forms.",
            param="functions" if body.functions else "function_call",
            code="contradictory_parameters",
        )
    functions = body.functions or []
    choice: ToolChoice | None
    if isinstance(body.function_call, ChosenFunction):
        names = [function.name for function in functions]
        _require_offered(body.function_call.name, names, "function_call", "functions")
        choice = ChosenTool(type="function", function=body.function_call)
    else:
        choice = body.function_call
    tools = [Tool(type="function", function=function) for function in functions]
    return body.model_copy(update={"tools": tools, "tool_choice": choice})


def _allowed(body: ChatBody, choice: AllowedToolsChoice) -> ChatBody:
    offered = {tool.function.name: tool for tool in body.tools or ()}
    allowed = choice.allowed_tools
    for tool in allowed.tools:
        _require_offered(tool.function.name, list(offered), "tool_choice", "tools")
    kept = [offered[tool.function.name] for tool in allowed.tools]
    return body.model_copy(update={"tools": kept, "tool_choice": allowed.mode})


def _require_offered(name: str, names: list[str], param: str, among: str) -> None:
    if name not in names:
        raise InvalidRequest(
            f"{param} names {name!r}, which is not in {among} ({', '.join(names) or 'empty'})."
            f"{did_you_mean(name, names)}",
            param=param,
            code="invalid_value",
        )
