"""Collects the answers of two models and their scores, within a limit of time."""

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from core.errors import Unavailable
from core.grading.grade import Judges
from core.inference.targets import Target
from core.spec.evaluation import FixedPrompt
from core.spec.held_out import Question
from core.spec.verdict import Answer, PromptAnswer, PromptAnswers
from core.verdict.asking import question_of_prompt
from core.verdict.judge import Collected
from core.verdict.metrics import Pair
from core.verdict.scoring import graded, scored
from worker.verdict.asking import Asking
from worker.verdict.subject import Subject

GRADED_AT_ONCE = 8


class Collecting:
    """Asks base and tuned model the held-out questions, then every model the fixed prompts."""

    def __init__(self, subject: Subject, asking: Asking, judges: Judges, seconds: float) -> None:
        self._subject = subject
        self._asking = asking
        self._judges = judges
        self._seconds = seconds
        self._pairs: dict[int, Pair] = {}
        self._answered: dict[tuple[int, int], Answer] = {}
        """To fixed prompts, by the indices of prompt and model."""
        self._missing: list[str] = []
        self._room = asyncio.Semaphore(GRADED_AT_ONCE)

    async def run(self) -> Collected:
        """Return what could be collected in time, and what could not."""
        began_at = time.monotonic()
        try:
            async with asyncio.timeout(self._seconds):
                await self._asking.background.during(self._ask())
        except TimeoutError:
            limit = f"{self._seconds:g} s (TUNESMITH_VERDICT_SECONDS)"
            self._missing.append(f"The answers and their scores were not complete after {limit}.")
        except Unavailable as error:
            self._missing.append(f"The engine did not answer: {error.message}.")
        pairs = [self._pairs[index] for index in sorted(self._pairs)]
        return Collected(
            pairs=pairs,
            prompts=self._prompts(),
            missing=(*self._missing, *self._unanswered(pairs)),
            seconds=time.monotonic() - began_at,
        )

    async def _ask(self) -> None:
        await self._ask_questions()
        await self._ask_prompts()

    async def _ask_questions(self) -> None:
        subject = self._subject
        questions = subject.facts.questions
        order = [(model, index) for index in range(len(questions)) for model in (0, 1)]
        if subject.is_another_base:  # an engine without room for both loads each model once
            order.sort(key=lambda each: -each[0])
        tasks = {
            each: asyncio.create_task(self._answer(each[0], questions[each[1]])) for each in order
        }
        by_model = [[tasks[model, index] for index in range(len(questions))] for model in (0, 1)]
        rows = [
            asyncio.create_task(self._compare(index, *pair))
            for index, pair in enumerate(zip(*by_model, strict=True))
        ]
        await _all_of([*tasks.values(), *rows])

    async def _answer(self, model: int, question: Question) -> Answer:
        subject = self._subject
        if model == 0 and subject.has_new_head:
            return Answer(labels=subject.facts.majority or ())
        return await self._asking.ask(subject.tuned if model else subject.base, question)

    async def _compare(
        self, index: int, base: asyncio.Task[Answer], tuned: asyncio.Task[Answer]
    ) -> None:
        """Score both answers to a question; those of graders may come late, or not at all."""
        question = self._subject.facts.questions[index]
        graders = self._subject.spec.evaluation.graders
        names = [grader.name for grader in graders]
        both = [await scored(question, await task, self._judges) for task in (base, tuned)]
        late = [each.without(names, "it was not graded in time") for each in both]
        self._pairs[index] = Pair(question, *late)
        if graders:
            async with self._room:
                found = [await graded(question, each, graders, self._judges) for each in both]
            self._pairs[index] = Pair(question, *found)

    async def _ask_prompts(self) -> None:
        prompts, form = self._subject.spec.evaluation.prompts, self._subject.facts.form
        several = self._subject.several_labels
        questions = [question_of_prompt(prompt, form, several) for prompt in prompts]

        async def ask(prompt: int, model: int, target: Target) -> None:
            self._answered[prompt, model] = await self._asking.ask(target, questions[prompt])

        await _all_of(
            [
                asyncio.create_task(ask(prompt, model, target))
                for model, (_, target) in enumerate(self._models())
                for prompt in range(len(prompts))
            ]
        )

    def _models(self) -> list[tuple[int | None, Target]]:
        """Return the models that answer fixed prompts, with the steps of checkpoints."""
        subject = self._subject
        base = [] if subject.has_new_head else [(None, subject.base)]
        return [*base, *subject.checkpoints, (None, subject.tuned)]

    def _prompts(self) -> list[PromptAnswers]:
        models = self._models()
        prompts: Sequence[FixedPrompt] = self._subject.spec.evaluation.prompts
        return [
            PromptAnswers(
                prompt=prompt,
                answers=tuple(
                    PromptAnswer(model=target.id, step=step, answer=self._answered[number, model])
                    for model, (step, target) in enumerate(models)
                    if (number, model) in self._answered
                ),
            )
            for number, prompt in enumerate(prompts)
        ]

    def _unanswered(self, pairs: Sequence[Pair]) -> list[str]:
        told = []
        asked = len(self._subject.facts.questions)
        if late := asked - len(pairs):
            told.append(f"{late:,} of {asked:,} held-out rows were not answered by both models.")
        errors = [
            each.answer.error
            for pair in pairs
            for each in (pair.tuned, pair.base)
            if each.answer.error is not None
        ]
        if errors:
            told.append(f"{len(errors):,} requests were refused, the first one: {errors[0]}")
        return told


async def _all_of(tasks: Sequence[asyncio.Task[Any]]) -> None:
    """Wait for all. The first failure, or a cancellation, cancels the others."""
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
