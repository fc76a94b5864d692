"""Converts a request body and its model into engine requests."""

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, assert_never

from core.errors import InvalidRequest
from core.inference.history import cleaned
from core.inference.refusals import check_chat, check_completion
from core.inference.sampling import (
    check_sampling,
    constrained_text,
    prompt_ending,
    sampling_values,
)
from core.inference.schemas import (
    AllowedToolsChoice,
    ChatBody,
    ChosenTool,
    CompletionBody,
    GenerationBody,
    GrammarFormat,
    JsonObjectFormat,
    JsonSchemaFormat,
    RegexFormat,
    StreamOptions,
    TextFormat,
)
from core.inference.targets import Target
from core.inference.tools import with_tools
from core.records.ids import new_id
from core.spec.generation import (
    ChatPrompt,
    GenerationRequest,
    GrammarOutput,
    JsonObjectOutput,
    Prompt,
    RegexOutput,
    SamplingSpec,
    SchemaOutput,
    StructuredOutputSpec,
    TextPrompt,
    TokenPrompt,
    ToolCallOutput,
)
from core.spec.ids import ProjectId

DEFAULT_COMPLETION_TOKENS = 16
MAX_CHOICES = 256


@dataclass(frozen=True)
class Plan:
    """An answer: its model, and the engine requests for it, all with the same sampling."""

    id: str
    created: int
    model: str
    requests: Sequence[GenerationRequest]
    include_usage: bool
    has_functions: bool = False
    """A chat with the older `functions`: its calls have the older form."""
    one_call: bool = False
    """Each choice of a chat has at most one call."""
    continuous_usage: bool = False
    """Every chunk of a stream has the usage so far."""

    @property
    def sampling(self) -> SamplingSpec:
        return self.requests[0].sampling


def plan_chat(target: Target, project: ProjectId, body: ChatBody) -> Plan:
    """Raises InvalidRequest for what cannot be served, or contradicts itself."""
    has_functions = bool(body.functions)
    body = with_tools(body)
    check_chat(body)
    offered = () if body.tool_choice == "none" else tuple(body.tools or ())
    # unchanged, as in training
    tools = tuple(tool.model_dump(exclude_unset=True) for tool in offered)
    prompt = ChatPrompt(
        messages=cleaned(body.messages),
        tools=tools,
        template_kwargs=_template_kwargs(body),
        ending=prompt_ending(body),
        add_special_tokens=bool(body.add_special_tokens),
    )
    sampling = _sampling(
        body,
        max_tokens=body.max_completion_tokens or body.max_tokens,
        top_logprobs=(body.top_logprobs or 0) if body.logprobs else None,
        structured_output=_structured_output(body),
    )
    plan = _plan("chatcmpl", project, target, [prompt], sampling, body)
    one_call = has_functions or body.parallel_tool_calls is False
    return replace(plan, has_functions=has_functions, one_call=one_call)


def _template_kwargs(body: ChatBody) -> dict[str, Any]:
    """Return the variables of the chat template, including the reasoning effort.

    The engine passes an effort of `none` only to templates that know it.
    """
    variables = dict(body.chat_template_kwargs or {})
    if body.reasoning_effort is not None:
        if "reasoning_effort" in variables:
            raise InvalidRequest(
                "reasoning_effort is also in chat_template_kwargs; use only one of them.",
                param="reasoning_effort",
                code="contradictory_parameters",
            )
        variables["reasoning_effort"] = body.reasoning_effort
    return variables


def plan_completion(target: Target, project: ProjectId, body: CompletionBody) -> Plan:
    """Raises InvalidRequest for what cannot be served, or contradicts itself."""
    check_completion(body)
    sampling = _sampling(
        body,
        max_tokens=DEFAULT_COMPLETION_TOKENS if body.max_tokens is None else body.max_tokens,
        top_logprobs=body.logprobs,
        structured_output=constrained_text(body),
        score_prompt=bool(body.echo) and body.logprobs is not None,
    )
    prompts = prompts_of(body)
    if len(prompts) * sampling.n > MAX_CHOICES:
        raise InvalidRequest(
            f"{len(prompts)} prompts times n = {sampling.n} are more than {MAX_CHOICES} choices; "
            "send several requests.",
            param="prompt",
            code="invalid_value",
        )
    return _plan("cmpl", project, target, prompts, sampling, body)


def prompts_of(body: CompletionBody) -> list[Prompt]:
    """Return the prompts from any of OpenAI's four formats."""
    prompt = body.prompt
    special = body.add_special_tokens is not False
    if isinstance(prompt, str):
        return [TextPrompt(text=prompt, add_special_tokens=special)]
    if isinstance(prompt[0], int):
        return [TokenPrompt(tokens=tuple(prompt))]
    return [
        TextPrompt(text=each, add_special_tokens=special)
        if isinstance(each, str)
        else TokenPrompt(tokens=tuple(each))
        for each in prompt
    ]


def _sampling(
    body: GenerationBody,
    *,
    max_tokens: int | None,
    top_logprobs: int | None,
    structured_output: StructuredOutputSpec | None = None,
    score_prompt: bool = False,
) -> SamplingSpec:
    check_sampling(body, max_tokens)
    if body.ignore_eos and structured_output is not None:
        raise InvalidRequest(
            "Structured output ends when it is complete. Remove ignore_eos.",
            param="ignore_eos",
            code="contradictory_parameters",
        )
    return SamplingSpec(
        max_tokens=max_tokens,
        temperature=1.0 if body.temperature is None else body.temperature,
        top_p=1.0 if body.top_p is None else body.top_p,
        seed=secrets.randbits(63) if body.seed is None else body.seed % 2**63,
        stop=(body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ()),
        n=body.n or 1,
        top_logprobs=top_logprobs,
        logit_bias={int(token): bias for token, bias in (body.logit_bias or {}).items()},
        frequency_penalty=body.frequency_penalty or 0.0,
        presence_penalty=body.presence_penalty or 0.0,
        structured_output=structured_output,
        ignore_eos=bool(body.ignore_eos),
        score_prompt=score_prompt,
        **sampling_values(body),
    )


def _structured_output(body: ChatBody) -> StructuredOutputSpec | None:
    required = _required_form(body)
    constraint = constrained_text(body)
    if constraint is None or required is None:
        return constraint or required
    other = "tool_choice" if isinstance(required, ToolCallOutput) else "response_format"
    raise InvalidRequest(
        f"{constraint.param} and {other} exclude each other; use one.",
        param=constraint.param,
        code="contradictory_parameters",
    )


def _required_form(body: ChatBody) -> StructuredOutputSpec | None:
    match body.tool_choice:
        case "required":
            return ToolCallOutput()
        case ChosenTool(function=function):
            return ToolCallOutput(name=function.name)
        case "none" | "auto" | AllowedToolsChoice() | None:  # `with_tools` resolves the third
            pass
        case _:
            assert_never(body.tool_choice)
    match body.response_format:
        case JsonObjectFormat():
            return JsonObjectOutput()
        case JsonSchemaFormat(json_schema=named):
            return SchemaOutput(json_schema=named.schema_ or {})
        case RegexFormat(pattern=pattern):
            return RegexOutput(regex=pattern, param="response_format")
        case GrammarFormat(grammar=grammar):
            return GrammarOutput(grammar=grammar, param="response_format")
        case TextFormat() | None:
            return None
        case _:
            assert_never(body.response_format)


def _plan(
    prefix: Literal["chatcmpl", "cmpl"],
    project: ProjectId,
    target: Target,
    prompts: Sequence[Prompt],
    sampling: SamplingSpec,
    body: GenerationBody,
) -> Plan:
    id_ = new_id(prefix)
    options = body.stream_options or StreamOptions()
    return Plan(
        id=id_,
        created=int(time.time()),
        model=target.id,
        requests=[
            GenerationRequest(
                id=f"{id_}-{index}",
                base=target.base,
                adapter=target.adapter,
                serving=target.serving,
                prompt=prompt,
                sampling=sampling,
                project=project,
            )
            for index, prompt in enumerate(prompts)
        ],
        include_usage=options.include_usage,
        continuous_usage=options.include_usage and options.continuous_usage_stats,
    )
