"""The sampling parameters of vLLM, on both generation routes.

Each is served, or must have its neutral value.
"""

import json
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from core.errors import InvalidRequest
from core.spec.generation import (
    ChoiceOutput,
    ConstrainedText,
    GrammarOutput,
    JsonObjectOutput,
    PromptEnding,
    RegexOutput,
    SchemaOutput,
)
from core.spec.numbers import Flag, Integer, Number

MAX_STOP_TOKENS = 128
MAX_CONSTRAINT_CHARACTERS = 65_536
"""The engine's own limits are lower; this one bounds what it has to read."""
MAX_CONSTRAINT_CHOICES = 4096

ConstraintText = Annotated[str, Field(min_length=1, max_length=MAX_CONSTRAINT_CHARACTERS)]
_Choices = Annotated[
    list[Annotated[str, Field(min_length=1, max_length=MAX_CONSTRAINT_CHARACTERS)]],
    Field(fail_fast=True, min_length=1, max_length=MAX_CONSTRAINT_CHOICES),
]
_Schema = dict[str, Any] | ConstraintText
"""An object, or its JSON."""


class StructuredOutputs(BaseModel):
    """The newer form of the `guided_…` fields: one of them."""

    model_config = ConfigDict(extra="forbid")

    json_: Annotated[_Schema | None, Field(alias="json")] = None
    regex: ConstraintText | None = None
    choice: _Choices | None = None
    grammar: ConstraintText | None = None
    json_object: Flag | None = None
    structural_tag: object = None
    whitespace_pattern: object = None
    disable_additional_properties: object = None
    # Hints, which are accepted and ignored.
    disable_any_whitespace: Flag | None = None
    disable_fallback: Flag | None = None


class SamplingFields(BaseModel):
    """Null means the same as a missing field."""

    top_k: Annotated[Integer, Field(ge=-1, le=2**31 - 1)] | None = None
    """-1 and 0: all tokens."""
    min_p: Annotated[Number, Field(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[Number, Field(ge=0.01, le=100)] | None = None
    min_tokens: Annotated[Integer, Field(ge=0, le=1_000_000)] | None = None
    stop_token_ids: (
        Annotated[
            list[Annotated[Integer, Field(ge=0, le=2**31 - 1)]],
            Field(fail_fast=True, max_length=MAX_STOP_TOKENS),
        ]
        | None
    ) = None
    include_stop_str_in_output: Flag | None = None
    continue_final_message: Flag | None = None
    add_generation_prompt: Flag | None = None
    add_special_tokens: Flag | None = None
    guided_json: _Schema | None = None
    guided_regex: ConstraintText | None = None
    guided_choice: _Choices | None = None
    guided_grammar: ConstraintText | None = None
    structured_outputs: StructuredOutputs | None = None
    # These must be neutral, see `_NEUTRAL`.
    skip_special_tokens: object = None
    use_beam_search: object = None
    length_penalty: object = None
    early_stopping: object = None
    prompt_logprobs: object = None
    truncate_prompt_tokens: object = None
    bad_words: object = None
    allowed_token_ids: object = None
    logits_processors: object = None
    guided_whitespace_pattern: object = None
    return_token_ids: object = None
    return_tokens_as_token_ids: object = None
    # These are accepted and ignored.
    guided_decoding_backend: str | None = None
    spaces_between_special_tokens: Flag | None = None
    priority: Integer | None = None


_NEUTRAL: Mapping[str, tuple[object, ...]] = {
    "skip_special_tokens": (None, True),
    "use_beam_search": (None, False),
    "length_penalty": (None, 1.0),
    "early_stopping": (None, False),
    "prompt_logprobs": (None,),
    "truncate_prompt_tokens": (None,),
    "bad_words": (None, []),
    "allowed_token_ids": (None,),
    "logits_processors": (None, []),
    "guided_whitespace_pattern": (None,),
    "return_token_ids": (None, False),
    "return_tokens_as_token_ids": (None, False),
}
_NEUTRAL_OUTPUTS: Mapping[str, tuple[object, ...]] = {
    "structural_tag": (None,),
    "whitespace_pattern": (None,),
    "disable_additional_properties": (None, False),
}


def check_sampling(fields: SamplingFields, max_tokens: int | None) -> None:
    """Raise InvalidRequest for what cannot be served, or contradicts itself."""
    _require_neutral(fields, _NEUTRAL)
    if fields.structured_outputs is not None:
        _require_neutral(fields.structured_outputs, _NEUTRAL_OUTPUTS, "structured_outputs.")
    if max_tokens is not None and (fields.min_tokens or 0) > max_tokens:
        raise InvalidRequest(
            f"min_tokens is {fields.min_tokens}, but at most {max_tokens} tokens are generated.",
            param="min_tokens",
            code="invalid_value",
        )
    if fields.continue_final_message and fields.add_generation_prompt:
        raise InvalidRequest(
            "continue_final_message and add_generation_prompt exclude each other: an answer "
            "continues the last message, or is a new one. Set one of them to false.",
            param="continue_final_message",
            code="contradictory_parameters",
        )


def sampling_values(fields: SamplingFields) -> dict[str, Any]:
    """Return the fields of a `SamplingSpec` that these parameters set."""
    given = {
        "top_k": None if fields.top_k is None else max(fields.top_k, 0),
        "min_p": fields.min_p,
        "repetition_penalty": fields.repetition_penalty,
        "min_tokens": fields.min_tokens,
        "stop_token_ids": None if fields.stop_token_ids is None else tuple(fields.stop_token_ids),
        "include_stop": fields.include_stop_str_in_output,
    }
    return {name: value for name, value in given.items() if value is not None}


def prompt_ending(fields: SamplingFields) -> PromptEnding:
    """Return what follows the messages of a chat."""
    if fields.continue_final_message:
        return "final_message"
    return "nothing" if fields.add_generation_prompt is False else "generation_prompt"


def constrained_text(fields: SamplingFields) -> ConstrainedText | None:
    """Return the constraint of the text, by either form; InvalidRequest for more than one."""
    newer = fields.structured_outputs or StructuredOutputs()
    found = {
        "guided_json": fields.guided_json,
        "guided_regex": fields.guided_regex,
        "guided_choice": fields.guided_choice,
        "guided_grammar": fields.guided_grammar,
        "structured_outputs.json": newer.json_,
        "structured_outputs.regex": newer.regex,
        "structured_outputs.choice": newer.choice,
        "structured_outputs.grammar": newer.grammar,
        "structured_outputs.json_object": newer.json_object or None,
    }
    given = [(name, value) for name, value in found.items() if value is not None]
    if len(given) > 1:
        raise InvalidRequest(
            f"{given[0][0]} and {given[1][0]} exclude each other; use one.",
            param=given[1][0],
            code="contradictory_parameters",
        )
    return _constraint(*given[0]) if given else None


def _constraint(param: str, value: Any) -> ConstrainedText:
    match param.replace("structured_outputs.", "guided_"):
        case "guided_json":
            return SchemaOutput(json_schema=_schema(value, param), param=param)
        case "guided_regex":
            return RegexOutput(regex=value, param=param)
        case "guided_choice":
            return ChoiceOutput(choices=tuple(value), param=param)
        case "guided_grammar":
            return GrammarOutput(grammar=value, param=param)
        case _:
            return JsonObjectOutput(param=param)


def _schema(given: dict[str, Any] | str, param: str) -> dict[str, Any]:
    if isinstance(given, dict):
        return given
    try:
        schema = json.loads(given)
    except (ValueError, RecursionError):
        schema = None
    if isinstance(schema, dict):
        return schema
    raise InvalidRequest(
        f"{param} must be a JSON schema: an object, or a text that is the JSON of an object.",
        param=param,
        code="invalid_json_schema",
    )


def _require_neutral(
    fields: BaseModel, neutral: Mapping[str, tuple[object, ...]], prefix: str = ""
) -> None:
    for name, values in neutral.items():
        if getattr(fields, name) not in values:
            raise InvalidRequest(
                f"{prefix}{name} with this value is not supported; remove it.",
                param=f"{prefix}{name}",
                code="unsupported_parameter",
            )
