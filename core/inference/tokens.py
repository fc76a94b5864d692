"""vLLM's bodies and objects for a model's tokenizer."""

from typing import Annotated, Any

from pydantic import Field

from core.errors import InvalidRequest
from core.inference.schemas import MAX_MESSAGES, MAX_TOOLS, Body, TokenId, Tool
from core.inference.targets import Target
from core.records.ids import new_id
from core.spec.generation import ChatPrompt, TextPrompt
from core.spec.ids import ModelId, ProjectId
from core.spec.template import TemplateVariables
from core.spec.tokenization import (
    DetokenizeRequest,
    TokenizeAnswer,
    TokenizerAnswer,
    TokenizeRequest,
    TokenizerRequest,
)

MAX_TOKENS = 150_000
"""Of a text to decode: more than a body may have values."""

ModelName = Annotated[ModelId, Field(min_length=1, max_length=512, pattern=r"^[^\x00]*$")]


class TokenizeBody(Body):
    """A prompt, or messages. Null means the same as a missing field."""

    model: ModelName | None = None
    prompt: str | None = None
    messages: (
        Annotated[
            list[dict[str, Any]], Field(fail_fast=True, min_length=1, max_length=MAX_MESSAGES)
        ]
        | None
    ) = None
    tools: Annotated[list[Tool], Field(fail_fast=True, max_length=MAX_TOOLS)] | None = None
    add_special_tokens: bool | None = None
    add_generation_prompt: bool | None = None
    return_token_strs: bool | None = None
    continue_final_message: object = None
    chat_template: object = None
    chat_template_kwargs: TemplateVariables | None = None


class DetokenizeBody(Body):
    model: ModelName | None = None
    tokens: Annotated[list[TokenId], Field(fail_fast=True, max_length=MAX_TOKENS)]


def plan_tokenize(target: Target, project: ProjectId, body: TokenizeBody) -> TokenizeRequest:
    """Return the request to the engine; InvalidRequest for what contradicts itself."""
    _check(body)
    prompt: ChatPrompt | TextPrompt
    if body.messages is None:
        prompt = TextPrompt(text=body.prompt or "")
    else:
        prompt = ChatPrompt(
            messages=tuple(body.messages),
            tools=tuple(tool.model_dump(exclude_unset=True) for tool in body.tools or ()),
            template_kwargs=body.chat_template_kwargs or {},
        )
    return TokenizeRequest(
        **_model(target, project),
        prompt=prompt,
        add_special_tokens=body.add_special_tokens is not False,
        add_generation_prompt=body.add_generation_prompt is not False,
        with_names=bool(body.return_token_strs),
    )


def plan_detokenize(target: Target, project: ProjectId, body: DetokenizeBody) -> DetokenizeRequest:
    return DetokenizeRequest(**_model(target, project), tokens=tuple(body.tokens))


def plan_tokenizer_info(target: Target, project: ProjectId) -> TokenizerRequest:
    return TokenizerRequest(**_model(target, project))


def tokenized(answer: TokenizeAnswer) -> dict[str, Any]:
    return {
        "count": len(answer.tokens),
        "max_model_len": answer.context_length,
        "tokens": answer.tokens,
        "token_strs": answer.names,
    }


def tokenizer_info(answer: TokenizerAnswer) -> dict[str, Any]:
    """Return the facts under the names of `tokenizer_config.json`."""
    facts = answer.model_dump()
    return {"model_max_length": facts.pop("context_length"), **facts}


def _check(body: TokenizeBody) -> None:
    if (body.prompt is None) == (body.messages is None):
        raise InvalidRequest(
            "Send either prompt or messages.", param="prompt", code="contradictory_parameters"
        )
    if body.messages is not None and body.add_special_tokens:
        raise _unsupported(
            "add_special_tokens", "The chat template writes the special tokens of messages"
        )
    if body.continue_final_message:
        raise _unsupported(
            "continue_final_message", "The tokens of an unfinished answer are not served"
        )
    if body.chat_template is not None:
        raise _unsupported("chat_template", "The chat template is that of the model")


def _unsupported(param: str, why: str) -> InvalidRequest:
    return InvalidRequest(f"{why}; remove {param}.", param=param, code="unsupported_parameter")


def _model(target: Target, project: ProjectId) -> dict[str, Any]:
    return {
        "id": new_id("tok"),
        "base": target.base,
        "adapter": target.adapter,
        "serving": target.serving,
        "project": project,
    }
