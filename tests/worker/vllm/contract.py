"""What vLLM takes on the routes that the bridge uses, as far as the bridge uses it.

Read from the source of vLLM 0.33.0: `CompletionRequest`, `SamplingParams`, structured outputs,
and the two requests about LoRA adapters. Where vLLM ignores an unknown field, this is stricter.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

VOCABULARY = 4096
MAX_LOGPROBS = 20
"""The default of --max-logprobs."""

Token = Annotated[int, Field(ge=0, lt=VOCABULARY)]


class RefusedLate(Exception):
    """vLLM notices after it has answered with 200: the refusal is an event of the stream."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class StructuredOutputs(_Strict):
    grammar: str = Field(min_length=1)


class CompletionRequest(_Strict):
    model: str
    prompt: list[Annotated[int, Field(ge=0)]] = Field(min_length=1)
    max_tokens: int = Field(ge=1)
    n: int = Field(ge=1, le=16384)
    temperature: float = Field(ge=0, le=2)
    top_p: float = Field(gt=0, le=1)
    top_k: int = Field(ge=-1)
    min_p: float = Field(ge=0, le=1)
    repetition_penalty: float = Field(gt=0)
    frequency_penalty: float = Field(ge=-2, le=2)
    presence_penalty: float = Field(ge=-2, le=2)
    seed: int = Field(ge=-(2**63), le=2**63 - 1)
    ignore_eos: bool
    min_tokens: int = Field(0, ge=0)
    stop_token_ids: list[Token]
    stream: Literal[True]
    return_token_ids: Literal[True]
    return_tokens_as_token_ids: Literal[True]
    logprobs: int | None = Field(None, ge=0)
    echo: bool = False
    logit_bias: dict[str, float] | None = None
    structured_outputs: StructuredOutputs | None = None

    @model_validator(mode="after")
    def _refuse_greedy_choices(self) -> "CompletionRequest":
        if self.temperature == 0 and self.n > 1:  # from 0 to 0.01 it counts as 0.01
            raise ValueError(f"n must be 1 when using greedy sampling, got {self.n}.")
        return self

    @model_validator(mode="after")
    def _refuse_too_many_tokens(self) -> "CompletionRequest":
        if self.min_tokens > self.max_tokens:
            raise ValueError("min_tokens must be less than or equal to max_tokens")
        return self

    def check_late(self) -> None:
        """Raise RefusedLate for what only vLLM's engine looks at."""
        unknown = [token for token in self.logit_bias or {} if not 0 <= int(token) < VOCABULARY]
        if unknown:
            raise RefusedLate(
                f"token_id(s) {unknown} in logit_bias contain out-of-vocab token ids."
            )
        if (self.logprobs or 0) > MAX_LOGPROBS:
            raise RefusedLate(
                f"Requested sample logprobs of {self.logprobs}, which is greater than max allowed: "
                f"{MAX_LOGPROBS}"
            )


class LoadLoraAdapter(_Strict):
    lora_name: str = Field(min_length=1)
    lora_path: str = Field(min_length=1)


class UnloadLoraAdapter(_Strict):
    lora_name: str = Field(min_length=1)
