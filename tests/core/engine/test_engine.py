"""What the engine answers, held against transformers and PEFT one request at a time."""

import dataclasses
import random
import threading
import time

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from core.busy_file import BusyFile
from core.engine.text.answers import Detokenizer
from core.engine.text.token_bytes import TokenBytes
from core.errors import Unavailable
from core.spec.generation import (
    ChatPrompt,
    ChoiceFinished,
    GenerationDelta,
    GenerationStarted,
)
from tests.core.engine.asking import (
    END,
    PROMPTS,
    Answer,
    Asker,
    assert_greedy,
    greedy,
    logprobs_after,
)


def test_greedy_answers_equal_generate(asker, reference, tokenizer):
    for prompt in PROMPTS:
        assert_greedy(asker.ask(prompt, top_logprobs=0), reference, prompt, tokenizer)


def test_greedy_answers_with_an_adapter_equal_peft(asker, tuned, adapters, tokenizer):
    for prompt in PROMPTS:
        answer = asker.ask(prompt, adapters[0], top_logprobs=0)
        assert_greedy(answer, tuned, prompt, tokenizer)
        assert answer.text() != asker.ask(prompt).text(), "the adapter changed nothing"


def test_a_batch_of_mixed_lengths_and_models_answers_as_each_alone(
    asker, base, reference, adapter_folders, adapters, tokenizer
):
    together = [
        (prompt, index, asker.submit(prompt, adapter, top_logprobs=0))
        for index, adapter in enumerate([None, *adapters[:2]])
        for prompt in PROMPTS
    ]
    asker.finish()
    models = [
        reference,
        *(
            PeftModel.from_pretrained(
                AutoModelForCausalLM.from_pretrained(base.source, dtype=torch.float32), folder
            ).eval()
            for folder in adapter_folders[:2]
        ),
    ]
    for prompt, index, answer in together:
        assert_greedy(answer, models[index], prompt, tokenizer)


def test_a_seed_gives_the_same_answer_in_any_company(make_engine, reader, base, adapters):
    sampling = {"temperature": 1.2, "top_p": 0.95, "seed": 5, "n": 2, "max_tokens": 20}
    alone = Asker(make_engine(), reader, base).ask(PROMPTS[1], adapters[0], **sampling)
    assert alone.text(0) != alone.text(1)

    crowd = Asker(make_engine(max_sequences=5), reader, base)
    shuffled = random.Random(0)
    answers = []
    for index in range(9):
        adapter = shuffled.choice([None, adapters[0], adapters[1]])
        crowd.submit(shuffled.choice(PROMPTS), adapter, temperature=1, seed=index)
        if index % 3 == 0:
            answers.append(crowd.submit(PROMPTS[1], adapters[0], **sampling))
        crowd.engine.step()
    crowd.finish()
    for answer in answers:
        assert [answer.text(0), answer.text(1)] == [alone.text(0), alone.text(1)]


def test_another_seed_gives_another_answer(asker):
    texts = {asker.ask(PROMPTS[1], temperature=1, seed=seed).text() for seed in range(5)}
    assert len(texts) == 5


def test_logprobs_are_those_of_a_plain_forward_pass(asker, tuned, adapters, tokenizer):
    answer = asker.ask(PROMPTS[0], adapters[0], temperature=1.5, seed=3, top_logprobs=4)
    token_bytes = TokenBytes(tokenizer)
    by_bytes = {token_bytes.decoded_bytes(token): token for token in range(len(tokenizer))}
    completion = [by_bytes[bytes(each.bytes)] for each in answer.tokens()]
    assert len(completion) == 12
    expected_TV = logprobs_after(tuned, PROMPTS[0], completion)
    for token_id, found, expected_V in zip(completion, answer.tokens(), expected_TV, strict=True):
        assert found.logprob == pytest.approx(expected_V[token_id].item(), abs=1e-4)
        best = [each.logprob for each in found.top]
        assert best == pytest.approx(expected_V.topk(4).values.tolist(), abs=1e-4)


def test_an_end_that_is_to_be_ignored_ends_nothing(asker):
    always_ends = {"logit_bias": {END: 100}, "max_tokens": 5}
    assert asker.ask(PROMPTS[0], **always_ends).finished()[0].completion_tokens == 1
    finished = asker.ask(PROMPTS[0], ignore_eos=True, **always_ends).finished()[0]
    assert (finished.finish_reason, finished.completion_tokens) == ("length", 5)


def test_events_come_in_order_and_every_choice_ends_once(asker):
    answer = asker.ask(PROMPTS[0], n=3, temperature=1)
    started = GenerationStarted(prompt_tokens=3, hardware="fp32", precision="fp32")
    assert answer.items[0] == started
    assert not any(isinstance(each, GenerationStarted) for each in answer.items[1:])
    assert answer.finished().keys() == {0, 1, 2}
    for choice in range(3):
        kinds = [type(each) for each in answer.items[1:] if each.choice == choice]
        assert kinds == [GenerationDelta] * (len(kinds) - 1) + [ChoiceFinished]


def test_max_tokens_ends_with_length(asker):
    finished = asker.ask(PROMPTS[0], max_tokens=3).finished()[0]
    assert (finished.finish_reason, finished.completion_tokens) == ("length", 3)


def test_without_max_tokens_the_answer_may_fill_the_context(asker):
    finished = asker.ask(tuple(range(20, 140)), max_tokens=None, seed=1).finished()[0]
    assert (finished.finish_reason, finished.completion_tokens) == ("length", 128 - 120)


def test_an_end_token_ends_with_stop_and_has_no_text(asker, reference, tokenizer):
    completion = greedy(reference, PROMPTS[1])
    end = completion[5]
    request, token_bytes = asker.read(PROMPTS[1], top_logprobs=0)
    request = dataclasses.replace(request, end_token_ids=frozenset({end}))
    answer = Answer()
    asker.engine.submit(request, Detokenizer(request, token_bytes), answer.items.append)
    asker.finish()
    before_end = completion[: completion.index(end)]
    finished = answer.finished()[0]
    assert finished.finish_reason == "stop"
    assert finished.completion_tokens == len(before_end) + 1
    assert answer.text() == tokenizer.decode(before_end)
    assert len(answer.tokens()) == len(before_end)


def test_a_stop_string_cuts_the_text_and_ends_the_sequence(asker):
    whole = asker.ask(PROMPTS[1]).text()
    stop = whole[4:7]
    answer = asker.ask(PROMPTS[1], stop=(stop,))
    assert answer.text() == whole[: whole.index(stop)]
    finished = answer.finished()[0]
    assert finished.finish_reason == "stop"
    assert finished.completion_tokens < 12


def test_a_chat_is_rendered_by_the_template(asker, reference, tokenizer):
    messages = ({"role": "user", "content": "Hi there"},)
    rendered = tokenizer.apply_chat_template(
        list(messages), add_generation_prompt=True, tokenize=False
    )
    prompt = tuple(tokenizer(rendered)["input_ids"])
    answer = asker.ask(ChatPrompt(messages=messages), top_logprobs=0)
    assert answer.items[0].prompt_tokens == len(prompt)
    assert_greedy(answer, reference, prompt, tokenizer)


def test_a_cancelled_request_frees_its_rows_and_the_others_go_on(asker, reference, tokenizer):
    engine = asker.engine
    kept = asker.submit(PROMPTS[0], top_logprobs=0)
    cancelled = asker.submit(PROMPTS[1], n=3)
    engine.step()
    engine.step()
    engine.cancel(asker.tickets[1])
    items = len(cancelled.items)
    engine.step()
    assert engine.scheduler.running == 1
    asker.finish()
    assert len(cancelled.items) == items
    assert_greedy(kept, reference, PROMPTS[0], tokenizer)


def test_a_waiting_request_that_is_cancelled_never_runs(make_engine, reader, base):
    asker = Asker(make_engine(max_sequences=1), reader, base)
    asker.submit(PROMPTS[0])
    waiting = asker.submit(PROMPTS[1])
    asker.engine.step()
    asker.engine.cancel(asker.tickets[1])
    asker.finish()
    assert waiting.items == []


def test_a_request_cancelled_while_a_model_is_loaded_fails_no_other(
    asker, reference, tokenizer, monkeypatch
):
    kept = asker.submit(PROMPTS[0], top_logprobs=0)
    cancelled = asker.submit(PROMPTS[1], n=3)
    prepare = asker.engine.runner.prepare

    def slow_prepare(step, in_use):
        asker.engine.cancel(asker.tickets[1])
        return prepare(step, in_use)

    monkeypatch.setattr(asker.engine.runner, "prepare", slow_prepare)
    asker.finish()
    assert cancelled.items == []
    assert_greedy(kept, reference, PROMPTS[0], tokenizer)


def test_a_full_queue_refuses_and_says_when_to_come_back(make_engine, reader, base):
    asker = Asker(make_engine(max_waiting=2), reader, base)
    for _ in range(2):
        asker.submit(PROMPTS[0])
    with pytest.raises(Unavailable) as caught:
        asker.submit(PROMPTS[0])
    assert caught.value.code == "queue_full"
    assert caught.value.retry_after_seconds > 0
    asker.finish()
    assert asker.ask(PROMPTS[0]).finished()


def test_an_adapter_that_cannot_be_loaded_fails_its_request_alone(
    asker, adapters, files, reference, tokenizer
):
    other = asker.submit(PROMPTS[0], top_logprobs=0)
    failed = asker.submit(PROMPTS[0], adapters[3], n=2)
    weights = files.folder(adapters[3].sha256) / "adapter_model.safetensors"
    hidden = weights.rename(weights.with_name("hidden"))
    asker.finish()
    hidden.rename(weights)
    [error] = failed.items
    assert isinstance(error, Unavailable)
    assert error.code == "adapter_corrupt"
    assert_greedy(other, reference, PROMPTS[0], tokenizer)


def test_a_fault_of_the_device_ends_the_request_after_its_first_token(asker, monkeypatch, caplog):
    answer = asker.submit(PROMPTS[0])
    asker.engine.step()

    def out_of_memory(step):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(asker.engine.runner, "run", out_of_memory)
    asker.finish()
    assert isinstance(answer.items[0], GenerationStarted)
    assert answer.items[-1].code == "engine_failed"
    assert "out of memory" in caplog.text
    assert "out of memory" not in answer.items[-1].message
    monkeypatch.undo()
    assert asker.ask(PROMPTS[0]).finished()


def test_an_answer_that_cannot_be_read_fails_its_request_alone(asker, reference, tokenizer, caplog):
    class Unreadable(Detokenizer):
        def take(self, sequence, token):
            yield from super().take(sequence, token)
            if len(sequence.tokens) == 3:
                raise RecursionError("too deep")

    request, token_bytes = asker.read(PROMPTS[1], n=2)
    failed = Answer()
    other = asker.submit(PROMPTS[0], top_logprobs=0)
    asker.engine.submit(request, Unreadable(request, token_bytes), failed.items.append)
    asker.finish()
    assert [each.code for each in failed.items if isinstance(each, Unavailable)] == [
        "engine_failed"
    ]
    assert failed.items[-1].code == "engine_failed" and "too deep" in caplog.text
    assert_greedy(other, reference, PROMPTS[0], tokenizer)
    assert asker.engine.is_idle and asker.engine.sequences() == (0, 0)


def test_more_adapters_than_fit_take_turns(make_engine, reader, base, adapters, files):
    asker = Asker(make_engine(max_adapters=1), reader, base)
    answers = [asker.submit(PROMPTS[0], adapter) for adapter in (*adapters, *adapters)]
    asker.finish()
    assert all(answer.finished() for answer in answers)
    texts = [answer.text() for answer in answers]
    assert texts[:4] == texts[4:]
    assert len(set(texts)) == 4
    assert asker.engine.runner.resident_adapters() == [adapters[3].sha256]


def test_more_bases_than_fit_take_turns(make_engine, reader, base, adapters):
    asker = Asker(make_engine(max_bases=1), reader, base)
    other = base.model_copy(update={"id": "other"})
    answers = []
    for spec, adapter in ((base, adapters[0]), (other, None), (base, adapters[0]), (other, None)):
        asker.base = spec
        answers.append((asker.submit(PROMPTS[0]), asker.submit(PROMPTS[0], adapter)))
    asker.finish()
    plain, tuned = (answer.text() for answer in answers[0])
    assert plain != tuned
    assert [(a.text(), b.text()) for a, b in answers] == [(plain, tuned), (plain, plain)] * 2
    assert [key.spec for key in asker.engine.runner.resident_bases()] == [other]


def test_the_model_thread_serves_until_stopped_and_ends_what_is_left(asker):
    thread = threading.Thread(target=asker.engine.run)
    thread.start()
    is_finished = threading.Event()
    request, token_bytes = asker.read(PROMPTS[0])

    def emit(item) -> None:
        if isinstance(item, ChoiceFinished):
            is_finished.set()

    asker.engine.submit(request, Detokenizer(request, token_bytes), emit)
    assert is_finished.wait(timeout=180)
    asker.engine.stop()
    thread.join(timeout=180)
    assert not thread.is_alive()
    with pytest.raises(Unavailable, match="stopping"):
        asker.submit(PROMPTS[0])


def test_the_model_thread_shows_while_it_has_work(make_engine, reader, base, tmp_path):
    asker = Asker(make_engine(BusyFile(tmp_path / "busy")), reader, base)
    looking = BusyFile(tmp_path / "busy")
    thread = threading.Thread(target=asker.engine.run)
    thread.start()
    marks = []
    is_finished = threading.Event()
    request, token_bytes = asker.read(PROMPTS[0])

    def emit(item) -> None:
        marks.append(looking.is_marked_by_another())
        if isinstance(item, ChoiceFinished):
            is_finished.set()

    assert not looking.is_marked_by_another()
    asker.engine.submit(request, Detokenizer(request, token_bytes), emit)
    assert is_finished.wait(timeout=180)
    assert marks and all(marks)
    deadline = time.monotonic() + 60
    while looking.is_marked_by_another():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    asker.engine.stop()
    thread.join(timeout=180)


def test_stopping_tells_every_request_in_flight(asker):
    answers = [asker.submit(prompt) for prompt in PROMPTS]
    asker.engine.stop()
    asker.engine.run()
    assert [answer.items[-1].code for answer in answers] == ["engine_stopping"] * 4
