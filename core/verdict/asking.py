"""The engine requests of questions and fixed prompts, and answers read from the events."""

from typing import Any

from core.inference.answer import Answer as Generated
from core.inference.targets import Target
from core.records.ids import new_id
from core.spec.classification import ClassificationAnswer, ClassificationRequest
from core.spec.evaluation import FixedPrompt
from core.spec.generation import ChatPrompt, GenerationRequest, Prompt, SamplingSpec, TextPrompt
from core.spec.held_out import PromptForm, Question
from core.spec.ids import ProjectId
from core.spec.verdict import Answer

PROMPT_TOKENS = 256
"""The longest answer to a fixed prompt."""
LEAST_PROBABILITY = 0.5
"""From which a label applies, if a text may have several."""


def question_of_prompt(
    prompt: FixedPrompt, form: PromptForm, several_labels: bool = False
) -> Question:
    """Return a fixed prompt as a question without a reference.

    A bare text is a message of the user if the model was trained on conversations.
    """
    if not isinstance(prompt, str):
        messages = tuple(message.model_dump() for message in prompt)
        return Question(line=0, messages=messages, max_tokens=PROMPT_TOKENS)
    if form == "chat":
        messages = ({"role": "user", "content": prompt},)
        return Question(line=0, messages=messages, max_tokens=PROMPT_TOKENS)
    labels = () if form == "labels" else None
    return Question(
        line=0,
        text=prompt,
        labels=labels,
        several_labels=several_labels,
        max_tokens=PROMPT_TOKENS,
    )


def generation_request(
    question: Question, target: Target, project: ProjectId, template_kwargs: dict[str, Any]
) -> GenerationRequest:
    """Return the request for a greedy answer, behind all live requests of the engine."""
    prompt: Prompt
    if question.messages:
        prompt = ChatPrompt(
            messages=question.messages, tools=question.tools, template_kwargs=template_kwargs
        )
    else:
        prompt = TextPrompt(text=question.text or "")
    return GenerationRequest(
        id=new_id("chatcmpl"),
        base=target.base,
        adapter=target.adapter,
        serving=target.serving,
        prompt=prompt,
        sampling=SamplingSpec(temperature=0, seed=0, max_tokens=question.max_tokens),
        project=project,
        background=True,
    )


def with_all_room(request: GenerationRequest) -> GenerationRequest:
    """Return the request with as many tokens as fit after its prompt."""
    sampling = request.sampling.model_copy(update={"max_tokens": None})
    return request.model_copy(update={"sampling": sampling})


def written(generated: Generated) -> Answer:
    """Return the answer of such a request."""
    (choice,) = generated.choices
    calls = [
        {"type": "function", "function": {"name": call.name, "arguments": call.arguments}}
        for call in choice.tool_calls
    ]
    return Answer(text=choice.text, tool_calls=tuple(calls), cut=choice.finish_reason == "length")


def classification_request(
    question: Question, target: Target, project: ProjectId
) -> ClassificationRequest:
    return ClassificationRequest(
        id=new_id("clsf"),
        base=target.base,
        adapter=target.adapter,
        serving=target.serving,
        texts=(question.text or "",),
        project=project,
    )


def labelled(answer: ClassificationAnswer, several_labels: bool) -> Answer:
    """Return the labels that a classifier chose for a text."""
    (scores,) = answer.scores
    if several_labels:
        chosen = tuple(name for name, share in scores.items() if share >= LEAST_PROBABILITY)
    else:
        chosen = (max(scores, key=lambda name: scores[name]),) if scores else ()
    return Answer(labels=chosen)
