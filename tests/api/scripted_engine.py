"""An engine without a model: it speaks the protocol of `core.spec.generation` and follows a script.

The last user message (or the prompt) chooses the behavior, see `_script`; the engine's `mood`
comes first. Tokens are words with the space before them; a prompt has as many tokens as words. The
vector of a text, or of token ids, is `vector_of`.
"""

import asyncio
import json
import struct
import threading
from base64 import b64encode
from collections.abc import AsyncIterator, Sequence
from typing import Any, Literal

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from core.spec.classification import ClassificationAnswer, ClassificationRequest
from core.spec.embedding import EmbeddingAnswer, EmbeddingRequest
from core.spec.generation import (
    ChatPrompt,
    ChoiceFinished,
    GeneratedToken,
    GenerationDelta,
    GenerationEvent,
    GenerationFailed,
    GenerationRequest,
    GenerationStarted,
    PromptToken,
    SamplingSpec,
    TextPrompt,
    TokenLogprob,
    TokenPrompt,
    ToolCalled,
)
from core.spec.tokenization import (
    DetokenizeAnswer,
    DetokenizeRequest,
    TokenizeAnswer,
    TokenizerAnswer,
    TokenizeRequest,
    TokenizerRequest,
)

ANSWER = "The answer is forty-two."
EXACTLY = "say exactly "
"""Before the text of an answer."""
CONTEXT_LENGTH = 100
DIMENSIONS = 4

Mood = Literal["well", "unfit", "full", "stopping", "silent", "breaking", "breaking later"]
"""Whether requests are refused, get no event, or lose their connection before or after the first.
"""


class ScriptedEngine:
    """The application and what it has seen."""

    def __init__(self) -> None:
        self.requests: list[GenerationRequest] = []
        self.classified: list[ClassificationRequest] = []
        self.embedded: list[EmbeddingRequest] = []
        self.was_left = threading.Event()
        """A client went away in the middle of an answer."""
        self.url = ""
        self.reset()
        self.app = Starlette(
            routes=[
                Route("/generate", self._generate, methods=["POST"]),
                Route("/classify", self._classify, methods=["POST"]),
                Route("/embed", self._embed, methods=["POST"]),
                Route("/tokenize", _tokenize, methods=["POST"]),
                Route("/detokenize", _detokenize, methods=["POST"]),
                Route("/tokenizer", _describe_tokenizer, methods=["POST"]),
                Route("/healthz", self._healthz),
            ]
        )

    def reset(self) -> None:
        """Forget what was seen, be well, and answer prompts of tokens like any others."""
        self.mood: Mood = "well"
        self.requests.clear()
        self.classified.clear()
        self.embedded.clear()
        self.was_left.clear()
        self.on_tokens = ""
        """The behavior that a prompt of tokens chooses, which holds no words."""
        self.on_later_tokens = ""
        """The same from the third request on."""
        self.seconds_before_tokens = 0.0

    async def _healthz(self, request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def _generate(self, request: Request) -> Response:
        asked = GenerationRequest.model_validate_json(await request.body())
        self.requests.append(asked)
        if (refusal := self._refusal()) is not None:
            return refusal
        text, param = prompt_of(asked)
        if isinstance(asked.prompt, TokenPrompt):
            await asyncio.sleep(self.seconds_before_tokens)
            text = (self.on_later_tokens if len(self.requests) > 2 else self.on_tokens) or text
        if len(text.split()) > CONTEXT_LENGTH:
            return _refusal(400, "The prompt is too long.", param, "context_length_exceeded")
        if text == "be full":
            return _refusal(429, "Too many requests wait.", None, "queue_full", retry_after=1)
        if text == "be a classifier":
            return _refusal(400, "This model writes no text.", "model", "not_a_generator")
        return StreamingResponse(self._lines(asked, text), media_type="application/x-ndjson")

    async def _classify(self, request: Request) -> Response:
        asked = ClassificationRequest.model_validate_json(await request.body())
        self.classified.append(asked)
        if (refusal := self._refusal()) is not None:
            return refusal
        if asked.adapter is None:
            return _refusal(400, "This model has no labels.", "model", "not_a_classifier")
        if "be full" in asked.texts:
            return _refusal(429, "Too many texts wait.", None, "queue_full", retry_after=1)
        answer = ClassificationAnswer(scores=tuple(map(_scores, asked.texts)))
        return Response(answer.model_dump_json(), media_type="application/json")

    async def _embed(self, request: Request) -> Response:
        asked = EmbeddingRequest.model_validate_json(await request.body())
        self.embedded.append(asked)
        if (refusal := self._refusal()) is not None:
            return refusal
        if asked.base.id == "tunesmith/tiny" and asked.adapter is None:
            return _refusal(400, "It embeds no texts.", "model", "not_an_embedder")
        if "be full" in asked.texts:
            return _refusal(429, "Too many texts wait.", None, "queue_full", retry_after=1)
        await asyncio.sleep(0.2 if "be slow" in asked.texts else 0)
        vectors = [vector_of(text)[: asked.dimensions] for text in asked.texts]
        answer = EmbeddingAnswer(
            vectors=tuple(b64encode(struct.pack(f"<{len(v)}f", *v)).decode() for v in vectors),
            tokens=sum(map(_count, asked.texts)),
        )
        return Response(answer.model_dump_json(), media_type="application/json")

    def _refusal(self) -> Response | None:
        match self.mood:
            case "unfit":
                return _refusal(421, "Another kind of engine.", "model", "unsupported_adapter")
            case "full":
                return _refusal(429, "Too many wait.", None, "queue_full", retry_after=3)
            case "stopping":
                return _refusal(503, "The engine stops.", None, "engine_stopping", retry_after=5)
            case "silent":
                return Response()
            case "breaking":
                return StreamingResponse(_broken())
            case _:
                return None

    async def _lines(self, asked: GenerationRequest, text: str) -> AsyncIterator[str]:
        try:
            async for event in _script(asked, text):
                yield event.model_dump_json() + "\n"
                if self.mood == "breaking later" and isinstance(event, GenerationDelta):
                    raise ConnectionResetError("the script says so")
        except asyncio.CancelledError:
            self.was_left.set()
            raise


def vector_of(text: str | Sequence[int]) -> list[float]:
    """The number of its characters or tokens, that of its words, and two fractions."""
    return [float(len(text)), float(_count(text)), 0.1, -1.5]


def _count(text: str | Sequence[int]) -> int:
    return len(text.split()) if isinstance(text, str) else len(text)


async def _tokenize(request: Request) -> Response:
    """Answer with the number of characters of each word."""
    asked = TokenizeRequest.model_validate_json(await request.body())
    prompt = asked.prompt
    if isinstance(prompt, TextPrompt):
        words = ["<s>"] * asked.add_special_tokens + prompt.text.split()
    else:
        words = prompt.messages[-1]["content"].split() + ["<answer>"] * asked.add_generation_prompt
    answer = TokenizeAnswer(
        tokens=tuple(map(len, words)),
        names=tuple(words) if asked.with_names else None,
        context_length=CONTEXT_LENGTH,
    )
    return Response(answer.model_dump_json(), media_type="application/json")


async def _detokenize(request: Request) -> Response:
    asked = DetokenizeRequest.model_validate_json(await request.body())
    answer = DetokenizeAnswer(text=" ".join("x" * token for token in asked.tokens))
    return Response(answer.model_dump_json(), media_type="application/json")


async def _describe_tokenizer(request: Request) -> Response:
    TokenizerRequest.model_validate_json(await request.body())
    special = dict.fromkeys(("bos", "unk", "sep", "pad", "cls", "mask"))
    answer = TokenizerAnswer(
        tokenizer_class="Paper",
        context_length=CONTEXT_LENGTH,
        chat_template="{{ messages }}",
        **{f"{name}_token": value for name, value in {**special, "eos": "</s>"}.items()},
    )
    return Response(answer.model_dump_json(), media_type="application/json")


async def _broken() -> AsyncIterator[str]:
    """Fail after the status has been sent, so that the server cuts the connection."""
    yield ""
    raise ConnectionResetError("the script says so")


def _scores(text: str) -> dict[str, float]:
    """Long texts are spam."""
    spam = 0.75 if len(text) > 20 else 0.25
    return {"spam": spam, "ham": 1 - spam}


def prompt_of(asked: GenerationRequest) -> tuple[str, str]:
    """The text that chooses the behavior, and the request field that it came from."""
    match asked.prompt:
        case ChatPrompt():
            return str(asked.prompt.messages[-1]["content"]), "messages"
        case TextPrompt():
            return asked.prompt.text, "prompt"
        case _:
            return " ".join(map(str, asked.prompt.tokens)), "prompt"


async def _script(asked: GenerationRequest, text: str) -> AsyncIterator[GenerationEvent]:
    words = text.split()
    prompt = _scored(words) if asked.sampling.score_prompt else ()
    given = asked.sampling.given_answer
    yield GenerationStarted(
        prompt_tokens=len(words),
        prompt=prompt,
        hardware="paper, fp32",
        precision="fp32",
        prompt_ids=(1, 2) if given else (),
    )
    match text:
        case "say what is given":
            tokens = tuple(_token(str(token), asked.sampling) for token in given or ())
            yield GenerationDelta(choice=0, text="", logprobs=tokens)
            yield ChoiceFinished(choice=0, finish_reason="stop", completion_tokens=len(tokens))
        case "fail":
            yield GenerationDelta(choice=0, text="The")
            yield GenerationFailed(code="out_of_memory", message="The device is out of memory.")
        case "stop short":
            yield GenerationDelta(choice=0, text="The")
        case "never end":
            while True:
                yield GenerationDelta(choice=0, text="on and ")
                await asyncio.sleep(0.01)
        case "think for ever":
            await asyncio.sleep(3600)
        case "call twice":
            for number in (1, 2):
                yield ToolCalled(choice=0, name="add", arguments=f'{{"a": {number}}}')
            yield ChoiceFinished(choice=0, finish_reason="tool_calls", completion_tokens=9)
        case "think first":
            for thought in ("Six times ", "seven."):
                yield GenerationDelta(choice=0, text="", reasoning=thought)
            yield GenerationDelta(choice=0, text="42", reasoning=" Done.")
            yield ChoiceFinished(
                choice=0, finish_reason="stop", completion_tokens=9, reasoning_tokens=6
            )
        case "answer in json":
            for event in _choices('{"value": 42}', asked.sampling):
                yield event
        case "say the seed":
            for event in _choices(str(asked.sampling.seed), asked.sampling):
                yield event
        case "say strange things":
            for event in _choices("é\u2028 \u0085 \U0001f600", asked.sampling):
                yield event
        case _:
            said = text.removeprefix(EXACTLY) if text.startswith(EXACTLY) else ANSWER
            for event in _choices(said, asked.sampling):
                yield event


def _choices(text: str, sampling: SamplingSpec) -> Sequence[GenerationEvent]:
    """Every choice says the same, cut by `stop` and `max_tokens`."""
    for stop in sampling.stop:
        text = text.partition(stop)[0]
    words = [word if i == 0 else " " + word for i, word in enumerate(text.split(" "))]
    kept = words[: sampling.max_tokens]
    reason: Any = "length" if len(kept) < len(words) else "stop"
    events: list[GenerationEvent] = []
    for choice in range(sampling.n):
        for count, word in enumerate(kept, 1):
            logprobs = () if sampling.top_logprobs is None else (_token(word, sampling),)
            events.append(
                GenerationDelta(
                    choice=choice, text=word, logprobs=logprobs, completion_tokens=count
                )
            )
        events.append(
            ChoiceFinished(choice=choice, finish_reason=reason, completion_tokens=len(kept))
        )
    return events


def _scored(words: Sequence[str]) -> tuple[PromptToken, ...]:
    """Say of every word but the first that it was as likely as a coin's side."""
    tokens = [word if i == 0 else " " + word for i, word in enumerate(words)]
    return tuple(
        PromptToken(token=word, bytes=tuple(word.encode()), logprob=-0.7 if i else None)
        for i, word in enumerate(tokens)
    )


def _token(word: str, sampling: SamplingSpec) -> GeneratedToken:
    others = [(word, -0.5), *((f"other{i}", -1.0 - i) for i in range(20))]
    top = [
        TokenLogprob(token=token, bytes=tuple(token.encode()), logprob=logprob)
        for token, logprob in others[: sampling.top_logprobs]
    ]
    return GeneratedToken(token=word, bytes=tuple(word.encode()), logprob=-0.5, top=tuple(top))


def _refusal(
    status: int, message: str, param: str | None, code: str, retry_after: int | None = None
) -> Response:
    headers = {} if retry_after is None else {"retry-after": str(retry_after)}
    error = {"message": message, "param": param, "code": code}
    return Response(
        json.dumps({"error": error}), status, headers=headers, media_type="application/json"
    )
