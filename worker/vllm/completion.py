"""The bodies of requests to vLLM's `/v1/completions`, and of its responses.

The fields are those of vLLM 0.33. A server ignores unknown fields, so names matter: until 0.11,
`structured_outputs` was `guided_json`, `guided_grammar` and so on.
"""

from typing import Any

from pydantic import BaseModel

from core.engine.policy.request import Request
from core.engine.results import TokenScores

TOKEN_PREFIX = "token_id:"


def completion_body(request: Request, model: str) -> dict[str, Any]:
    """Return a body with which vLLM generates what our engine would.

    vLLM receives and returns token ids; our code handles text, stop strings and tool calls. A given
    answer is sent as part of the prompt.
    """
    sampling = request.sampling
    given = sampling.given_answer
    greedy = is_greedy(request)
    body: dict[str, Any] = {
        "model": model,
        "prompt": [*request.prompt_tokens, *(given or ())],
        "max_tokens": 1 if given else max(1, request.max_tokens),
        "n": 1 if greedy else sampling.n,  # vLLM rejects n > 1 for greedy sampling
        "temperature": 0.0 if greedy else sampling.temperature,
        "top_p": 1.0 if greedy else sampling.top_p,
        "seed": sampling.seed,
        "frequency_penalty": sampling.frequency_penalty,
        "presence_penalty": sampling.presence_penalty,
        # These are always set: otherwise, vLLM uses the base's generation_config.json.
        "top_k": sampling.top_k,
        "min_p": sampling.min_p,
        "repetition_penalty": sampling.repetition_penalty,
        "ignore_eos": True,  # only the tokens below end an answer
        "stop_token_ids": sorted(request.ending_ids),
        "min_tokens": 0 if given else min(sampling.min_tokens, request.max_tokens),
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
    """Return whether all choices of a request are equal, so that vLLM generates only one."""
    sampling = request.sampling
    return sampling.given_answer is not None or sampling.temperature == 0 or sampling.top_p == 0


def reads_prompt(request: Request) -> bool:
    """Return whether the first chunk of each choice has the log-probabilities of the prompt."""
    sampling = request.sampling
    is_read = sampling.score_prompt or sampling.given_answer is not None
    return is_read and sampling.top_logprobs is not None


class Logprobs(BaseModel):
    """The log-probabilities of a chunk's tokens, those of the prompt first if it has them."""

    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]

    def scores(self, alternatives: int) -> list[TokenScores | None]:
        """Return the scores of each token; the first token of a prompt has none."""
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
    """Return the most likely tokens in descending order; vLLM lists the chosen token first."""
    ranked = sorted(top.items(), key=lambda pair: -pair[1])[:count]
    return tuple((int(name.removeprefix(TOKEN_PREFIX)), logprob) for name, logprob in ranked)
