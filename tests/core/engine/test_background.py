"""Background requests on a real model: they give way, and their answers stay the same."""

from core.engine.text.answers import Detokenizer
from core.engine.text.undivided import UndividedAnswer
from core.spec.generation import (
    ChoiceFinished,
    GenerationDelta,
    GenerationRequest,
    GenerationStarted,
    SamplingSpec,
    TokenPrompt,
)
from tests.core.engine.asking import PROMPTS, Answer, Asker


def submit_background(
    asker: Asker, prompt: tuple[int, ...], decoder=UndividedAnswer, **sampling
) -> Answer:
    """Submit a request of a batch."""
    spec = SamplingSpec(**{"max_tokens": 12, "temperature": 1, "ignore_eos": True} | sampling)
    asked = GenerationRequest(
        id="b",
        base=asker.base,
        prompt=TokenPrompt(tokens=prompt),
        sampling=spec,
        background=True,
    )
    answer = Answer()
    request, token_bytes = asker.reader.read(asked)
    assert request.is_background
    asker.engine.submit(request, decoder(request, token_bytes), answer.items.append)
    return answer


def test_preempted_answers_are_those_of_an_undisturbed_engine(make_engine, reader, base) -> None:
    alone = Asker(make_engine(), reader, base)
    expected = []
    for seed, prompt in enumerate(PROMPTS):
        answer = submit_background(alone, prompt, seed=seed)
        alone.finish()
        expected.append(answer.text())

    busy = Asker(make_engine(max_sequences=4), reader, base)
    batch = [submit_background(busy, prompt, seed=n) for n, prompt in enumerate(PROMPTS)]
    live = []
    for step in range(40):
        busy.engine.step()
        if step % 3 == 0:
            live.append(busy.submit(PROMPTS[step % 4], max_tokens=3))
    assert busy.engine.scheduler.preemptions > 0
    busy.finish()
    assert [answer.text() for answer in batch] == expected
    assert all(answer.finished() for answer in live)


def test_live_request_in_a_full_engine_answers_at_the_next_steps(make_engine, reader, base) -> None:
    asker = Asker(make_engine(max_sequences=4), reader, base)
    batch = [submit_background(asker, PROMPTS[n % 4], seed=n, max_tokens=60) for n in range(8)]
    for _ in range(3):
        asker.engine.step()
    live = asker.submit(PROMPTS[0], max_tokens=3, ignore_eos=True)
    for _ in range(3):
        asker.engine.step()
    assert live.finished()
    assert not any(answer.finished() for answer in batch)
    assert asker.engine.sequences() == (0, 0), "the report has live sequences only"
    asker.finish()
    assert all(answer.finished()[0].completion_tokens == 60 for answer in batch)


def test_answer_of_a_batch_is_one_delta_with_what_a_stream_says(make_engine, reader, base) -> None:
    wanted = {"n": 2, "seed": 5, "top_logprobs": 2, "max_tokens": 20}
    answers = []
    for decoder in (Detokenizer, UndividedAnswer):
        asker = Asker(make_engine(), reader, base)  # of its own: together, the two may round apart
        answers.append(submit_background(asker, PROMPTS[1], decoder, **wanted))
        asker.finish()
    streamed, whole = answers
    assert sum(isinstance(item, GenerationDelta) for item in streamed.items) > 20
    kinds = [type(item) for item in whole.items]
    assert kinds == [GenerationStarted, *[GenerationDelta, ChoiceFinished] * 2]
    assert whole.items[0] == streamed.items[0]
    for choice in (0, 1):
        assert whole.text(choice) == streamed.text(choice) != ""
        assert whole.tokens(choice) == streamed.tokens(choice)
    assert whole.finished() == streamed.finished()
    deltas = [item for item in whole.items if isinstance(item, GenerationDelta)]
    assert [delta.completion_tokens for delta in deltas] == [20, 20]


def test_answer_of_a_batch_without_text_has_no_delta(make_engine, reader, base) -> None:
    asker = Asker(make_engine(), reader, base)
    whole = submit_background(asker, PROMPTS[0], seed=1, max_tokens=0, ignore_eos=False)
    asker.finish()
    assert [type(item) for item in whole.items] == [GenerationStarted, ChoiceFinished]
