"""A request as vLLM's `/v1/completions` takes it, and what it sends back.

The fields are those of vLLM 0.33. A server ignores fields that it does not know, so names matter:
`structured_outputs` was `guided_json`, `guided_grammar` and so on until 0.11.
"""

from typing import Any

from pydantic import BaseModel

from core.engine.policy.request import Request
from core.engine.results import TokenScores

TOKEN_PREFIX = "token_id:"


def completion_body(request: Request, model: str) -> dict[str, Any]:
    """Return the body that has vLLM answer as our engine would.

    vLLM gets token ids and gives token ids back; text, stop strings and tool calls are ours. A
    given answer is read as if it were part of the prompt.
    """
    sampling = request.sampling
    given = sampling.given_answer
    greedy = is_greedy(request)
    body: dict[str, Any] = {
        "model": model,
        "prompt": [*request.prompt_tokens, *(given or ())],
        "max_tokens": 1 if given else max(1, request.max_tokens),
        "n": 1 if greedy else sampling.n,  # vLLM refuses to write the same answer twice
        "temperature": 0.0 if greedy else sampling.temperature,
        "top_p": 1.0 if greedy else sampling.top_p,
        "seed": sampling.seed,
        "frequency_penalty": sampling.frequency_penalty,
        "presence_penalty": sampling.presence_penalty,
        # What is left out here is taken from the base's generation_config.json.
        **{"top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0},
        "ignore_eos": True,  # the ends are those below, and no others
        "stop_token_ids": sorted(request.end_token_ids),
        "stream": True,
        "return_token_ids": True,
        "return_tokens_as_token_ids": True,
    }
    if sampling.top_logprobs is not None:
        body |= {"logprobs": sampling.top_logprobs, "echo": reads_prompt(request)}
    if sampling.logit_bias:
        body["logit_bias"] = {str(token): bias for token, bias in sampling.logit_bias.items()}
    if request.grammar is not None:
        body["structured_outputs"] = {"grammar": request.grammar.lark}
    return body


def is_greedy(request: Request) -> bool:
    """Say whether all choices of a request are the same, so that vLLM writes one of them."""
    sampling = request.sampling
    return sampling.given_answer is not None or sampling.temperature == 0 or sampling.top_p == 0


def reads_prompt(request: Request) -> bool:
    """Say whether the first chunk of each choice tells how likely the prompt was."""
    sampling = request.sampling
    is_read = sampling.score_prompt or sampling.given_answer is not None
    return is_read and sampling.top_logprobs is not None


class Logprobs(BaseModel):
    """Of the tokens of a chunk, those of the prompt first if it is in there."""

    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]

    def scores(self, alternatives: int) -> list[TokenScores | None]:
        """Return the scores token by token; nothing says how likely the first of a prompt is."""
        return [
            None
            if logprob is None or top is None
            else TokenScores(logprob, _best(top, alternatives))
            for logprob, top in zip(self.token_logprobs, self.top_logprobs, strict=True)
        ]


class Choice(BaseModel):
    """New tokens of one choice."""

    index: int
    token_ids: list[int]
    logprobs: Logprobs | None = None


class ErrorInfo(BaseModel):
    message: str
    type: str = ""
    code: int = 500


class Chunk(BaseModel):
    """One event of a stream: tokens, or the error that ends it."""

    choices: list[Choice] = []
    error: ErrorInfo | None = None


def _best(top: dict[str, float], count: int) -> tuple[tuple[int, float], ...]:
    """Return the most likely tokens, most likely first; vLLM puts the chosen one in front."""
    ranked = sorted(top.items(), key=lambda pair: -pair[1])[:count]
    return tuple((int(name.removeprefix(TOKEN_PREFIX)), logprob) for name, logprob in ranked)
