"""Converts a body of POST /v1/responses and its model into an engine request."""

import secrets
import time
from collections.abc import Sequence
from typing import Any

from core.inference.responses.items import Item
from core.inference.responses.messages import chat_messages
from core.inference.responses.refusals import check_response, is_forced
from core.inference.responses.schemas import AllowedTools, FunctionTool, NamedTool, ResponseBody
from core.inference.schemas import JsonObjectFormat, TextFormat
from core.inference.targets import Target
from core.records.ids import new_item_id
from core.spec.generation import (
    ChatPrompt,
    GenerationRequest,
    JsonObjectOutput,
    SamplingSpec,
    SchemaOutput,
    StructuredOutputSpec,
    ToolCallOutput,
)
from core.spec.ids import ProjectId
from core.spec.response import ResponsePlan

LOGPROBS = "message.output_text.logprobs"


def plan_response(
    target: Target, project: ProjectId, body: ResponseBody, items: Sequence[Item]
) -> ResponsePlan:
    """Return the plan for a conversation; `items` ends with those of the body's `input`.

    Raises InvalidRequest for what cannot be served, or contradicts itself.
    """
    check_response(body)
    id_ = new_item_id("resp")
    effort = body.reasoning and body.reasoning.effort
    prompt = ChatPrompt(
        messages=tuple(chat_messages(body.instructions, items)),
        tools=tuple(_chat_tool(tool) for tool in _offered(body)),
        template_kwargs={} if effort is None else {"reasoning_effort": effort},
    )
    request = GenerationRequest(
        id=id_,
        base=target.base,
        adapter=target.adapter,
        serving=target.serving,
        prompt=prompt,
        sampling=_sampling(body),
        project=project,
    )
    return ResponsePlan(frame=_frame(id_, target, body), request=request)


def _sampling(body: ResponseBody) -> SamplingSpec:
    return SamplingSpec(
        max_tokens=body.max_output_tokens,
        temperature=1.0 if body.temperature is None else body.temperature,
        top_p=1.0 if body.top_p is None else body.top_p,
        seed=secrets.randbits(63),
        top_logprobs=(body.top_logprobs or 0) if LOGPROBS in (body.include or ()) else None,
        structured_output=_structured_output(body),
    )


def _offered(body: ResponseBody) -> list[FunctionTool]:
    """Return the tools that the model may call."""
    tools = body.tools or []
    if body.tool_choice == "none":
        return []
    if isinstance(body.tool_choice, AllowedTools):
        allowed = {tool.name for tool in body.tool_choice.tools}
        return [tool for tool in tools if tool.name in allowed]
    return tools


def _chat_tool(tool: FunctionTool) -> dict[str, Any]:
    """Return a tool in the format of chats and datasets."""
    rendered = {"name", "description", "parameters"}
    function = tool.model_dump(include=rendered, exclude_none=True)
    return {"type": "function", "function": function}


def _structured_output(body: ResponseBody) -> StructuredOutputSpec | None:
    if is_forced(body):
        choice = body.tool_choice
        return ToolCallOutput(name=choice.name if isinstance(choice, NamedTool) else None)
    match body.format:
        case TextFormat():
            return None
        case JsonObjectFormat():
            return JsonObjectOutput()
        case named:
            return SchemaOutput(json_schema=named.schema_ or {})


def _frame(id_: str, target: Target, body: ResponseBody) -> dict[str, Any]:
    """Return the fields of the response that repeat the request, with OpenAI's defaults."""
    frame = {
        "id": id_,
        "object": "response",
        "created_at": int(time.time()),
        "background": bool(body.background),
        "instructions": body.instructions,
        "max_output_tokens": body.max_output_tokens,
        "max_tool_calls": body.max_tool_calls,
        "metadata": body.metadata or {},
        "model": target.id,
        "parallel_tool_calls": body.parallel_tool_calls is not False,
        "previous_response_id": body.previous_response_id,
        "prompt_cache_key": body.prompt_cache_key,
        "reasoning": _reasoning(body),
        "safety_identifier": body.safety_identifier,
        "service_tier": "default",
        "store": body.store is not False,
        "temperature": 1.0 if body.temperature is None else body.temperature,
        "text": {"format": _format(body), "verbosity": "medium"},
        "tool_choice": _tool_choice(body),
        "tools": [_shown_tool(tool) for tool in body.tools or ()],
        "top_logprobs": body.top_logprobs or 0,
        "top_p": 1.0 if body.top_p is None else body.top_p,
        "truncation": body.truncation or "disabled",
    }
    return frame if body.user is None else frame | {"user": body.user}


def _reasoning(body: ResponseBody) -> dict[str, Any]:
    asked = body.reasoning
    summary = asked and (asked.summary or asked.generate_summary)
    return {"effort": asked and asked.effort, "summary": summary}


def _format(body: ResponseBody) -> dict[str, Any]:
    shown = body.format.model_dump(by_alias=True, exclude_none=True)
    return {"schema": {}, **shown} if shown["type"] == "json_schema" else shown


def _tool_choice(body: ResponseBody) -> str | dict[str, Any]:
    choice = body.tool_choice
    return choice.model_dump() if isinstance(choice, NamedTool | AllowedTools) else choice or "auto"


def _shown_tool(tool: FunctionTool) -> dict[str, Any]:
    """Return a tool with all required fields, which may be null."""
    required = {"name", "description", "parameters", "strict"}
    return {**tool.model_dump(exclude_none=True), **tool.model_dump(include=required)}
