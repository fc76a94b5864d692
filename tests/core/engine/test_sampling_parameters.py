"""vLLM's sampling parameters, each in whole answers: alone, in company, and with one another."""

import random
import re

import pytest
import torch
from transformers import LogitsProcessorList, RepetitionPenaltyLogitsProcessor

from core.errors import InvalidRequest
from core.spec.generation import (
    ChatPrompt,
    ChoiceOutput,
    GenerationDelta,
    JsonObjectOutput,
    RegexOutput,
    SchemaOutput,
    TextPrompt,
)
from tests.core.engine.asking import END, PROMPTS, Answer, Asker, DecodedById

DRAWN = {"temperature": 1.5, "max_tokens": 20}


def ids_of(asker: Asker, prompt, **sampling) -> list[int]:
    """Return the token ids of the first choice, with the token that ends it."""
    items: list = []
    request, token_bytes = asker.read(prompt, **sampling)
    asker.engine.submit(request, DecodedById(request, token_bytes), items.append)
    asker.finish()
    return [each.token_id for each in items if hasattr(each, "token_id")]


@torch.inference_mode()
def penalized(model, prompt: tuple[int, ...], penalty: float, length: int) -> list[int]:
    """Return the greedy tokens of transformers with a repetition penalty."""
    ids_1T = torch.tensor([prompt])
    processors = LogitsProcessorList([RepetitionPenaltyLogitsProcessor(penalty)])
    for _ in range(length):
        scores_1V = processors(ids_1T, model(ids_1T).logits[:, -1])
        ids_1T = torch.cat([ids_1T, scores_1V.argmax(-1, keepdim=True)], dim=-1)
        if int(ids_1T[0, -1]) == END:
            break
    return ids_1T[0, len(prompt) :].tolist()


@pytest.mark.parametrize("options", [{"top_k": 1}, {"min_p": 1.0}])
def test_only_the_most_likely_token_is_greedy(asker, options):
    greedy = asker.ask(PROMPTS[1], max_tokens=20).text()
    assert asker.ask(PROMPTS[1], **DRAWN, seed=3).text() != greedy
    for seed in range(4):
        assert asker.ask(PROMPTS[1], **DRAWN, **options, seed=seed).text() == greedy


@pytest.mark.parametrize(
    ("options", "most"), [({"top_k": 3}, 3), ({"min_p": 0.5}, 400), ({"top_k": 2, "min_p": 0.1}, 2)]
)
def test_every_drawn_token_was_among_the_kept(asker, options, most):
    answer = asker.ask(PROMPTS[1], **DRAWN, **options, seed=9, n=4, top_logprobs=20)
    for choice in range(4):
        for token in answer.tokens(choice):
            likelier = sum(other.logprob > token.logprob for other in token.top)
            assert likelier < most
            if "min_p" in options:  # of probabilities at temperature 1.5
                gap = (token.top[0].logprob - token.logprob) / 1.5
                assert gap <= -torch.tensor(options["min_p"]).log().item() + 1e-4


@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("penalty", [1.3, 5.0])
def test_repetition_penalty_is_that_of_transformers(asker, reference, prompt, penalty):
    found = ids_of(asker, prompt, repetition_penalty=penalty, max_tokens=16)
    assert found == penalized(reference, prompt, penalty, 16)


def test_a_cached_prompt_counts_as_repetition_too(asker):
    """A public report: tokens of the prompt's cached part were not penalized."""
    prompt = tuple(range(30, 80))
    first = ids_of(asker, prompt, repetition_penalty=1.5, max_tokens=10)
    assert ids_of(asker, prompt, repetition_penalty=1.5, max_tokens=10) == first
    assert asker.engine.scheduler.prefix_cache_hits


def test_a_special_stop_token_takes_no_text_away(asker):
    """A public report: the text lost as many letters as the name of the token has."""
    tokens = asker.ask(PROMPTS[1], max_tokens=3, min_tokens=3, top_logprobs=0).tokens()
    ends = {"min_tokens": 3, "stop_token_ids": (1,), "logit_bias": {1: 100.0}, "max_tokens": 9}
    answers = [
        asker.ask(PROMPTS[1], **ends, include_stop=include_stop, top_logprobs=0)
        for include_stop in (False, True)
    ]
    assert answers[0].text() == answers[1].text() != ""
    for answer in answers:
        assert [each.bytes for each in answer.tokens()[:3]] == [each.bytes for each in tokens]
        assert answer.finished()[0].finish_reason == "stop"


def test_greedy_and_drawn_answers_share_a_batch_beyond_the_vocabulary(asker):
    """A public report: top_k above the vocabulary, and a greedy neighbor, each ended a server."""
    drawn = {"temperature": 1.0, "seed": 4}
    expected = [asker.ask(PROMPTS[0], **drawn).text(), asker.ask(PROMPTS[1]).text()]
    found = [
        asker.submit(PROMPTS[0], **drawn, top_k=9_999_999),
        asker.submit(PROMPTS[1], temperature=0, top_k=3),
        asker.submit(PROMPTS[1], temperature=1.0, top_k=1),
    ]
    asker.finish()
    assert [answer.text() for answer in found] == [*expected, expected[1]]


def test_stop_tokens_end_an_answer_without_their_text(asker):
    greedy = ids_of(asker, PROMPTS[1], max_tokens=12)
    asked = {"max_tokens": 12, "top_logprobs": 0, "stop_token_ids": (greedy[4], 361)}
    first = greedy.index(greedy[4])
    whole = asker.ask(PROMPTS[1], max_tokens=12, top_logprobs=0).tokens()
    answer = asker.ask(PROMPTS[1], **asked)
    finished = answer.finished()[0]
    assert (finished.finish_reason, finished.completion_tokens) == ("stop", first + 1)
    assert [each.bytes for each in answer.tokens()] == [each.bytes for each in whole[:first]]
    included = asker.ask(PROMPTS[1], **asked, include_stop=True).tokens()
    assert [each.bytes for each in included] == [each.bytes for each in whole[: first + 1]]


def test_stop_tokens_end_also_what_ignores_end_tokens(asker):
    greedy = ids_of(asker, PROMPTS[1], max_tokens=12, ignore_eos=True)
    found = ids_of(asker, PROMPTS[1], max_tokens=12, ignore_eos=True, stop_token_ids=(greedy[2],))
    assert found == greedy[: greedy.index(greedy[2]) + 1]


def test_a_stop_token_outside_the_vocabulary_is_refused(asker):
    with pytest.raises(InvalidRequest) as caught:
        asker.read(PROMPTS[0], stop_token_ids=(1, 9999))
    assert (caught.value.param, caught.value.code) == ("stop_token_ids", "invalid_token")


def test_no_end_comes_before_min_tokens(asker):
    """Nearly every token ends the answer, but not before it may."""
    stop = tuple(range(3, 355))
    assert len(ids_of(asker, PROMPTS[1], stop_token_ids=stop)) <= 2
    for least in (1, 5, 12):
        found = ids_of(asker, PROMPTS[1], stop_token_ids=stop, min_tokens=least, max_tokens=12)
        assert not set(found[:least]) & {*stop, END}
        assert len(found) == 12 or (len(found) > least and found[-1] in {*stop, END})


def test_the_end_of_text_is_forbidden_and_then_allowed(asker):
    biased = {"logit_bias": {END: 100.0}, "max_tokens": 12}
    assert ids_of(asker, PROMPTS[0], **biased) == [END]
    found = ids_of(asker, PROMPTS[0], **biased, min_tokens=7)
    assert found.index(END) == 7 == len(found) - 1


@pytest.fixture
def repeating(asker, tokenizer):
    """Ask for an answer that is the letter a, again and again."""
    [letter] = tokenizer("a")["input_ids"]

    def ask(**options) -> Answer:
        return asker.ask(PROMPTS[0], max_tokens=8, logit_bias={letter: 100.0}, **options)

    assert ask().text() == "a" * 8
    return ask


@pytest.mark.parametrize(
    ("stop", "min_tokens", "text"),
    [("a", 0, ""), ("a", 3, "aaa"), ("aa", 3, "aa"), ("aaaa", 1, ""), ("a", 8, "a" * 8)],
)
def test_stop_texts_count_once_there_are_enough_tokens(repeating, stop, min_tokens, text):
    """As in vLLM: the text that is complete by then does not count, but may be its beginning."""
    answer = repeating(stop=(stop,), min_tokens=min_tokens)
    assert answer.text() == text
    assert answer.finished()[0].finish_reason == ("length" if min_tokens == 8 else "stop")


def test_the_stop_text_is_included_on_request(repeating):
    answer = repeating(stop=("aaa",), include_stop=True)
    assert answer.text() == "aaa"
    assert answer.finished()[0].finish_reason == "stop"


EVERYTHING = {
    "temperature": 1.2,
    "top_k": 40,
    "min_p": 0.01,
    "top_p": 0.95,
    "repetition_penalty": 1.2,
    "frequency_penalty": 0.1,
    "min_tokens": 8,
    "stop_token_ids": tuple(range(40, 60)),
    "include_stop": True,
    "seed": 5,
    "n": 2,
    "max_tokens": 20,
}


def test_a_seed_gives_the_same_answer_in_any_company(make_engine, reader, base, adapters):
    alone = Asker(make_engine(), reader, base).ask(PROMPTS[1], adapters[0], **EVERYTHING)
    assert alone.text(0) != alone.text(1)
    crowd = Asker(make_engine(max_sequences=5), reader, base)
    chance = random.Random(0)
    others = [{}, {"top_k": 2, "temperature": 1}, {"repetition_penalty": 3.0}, {"min_tokens": 9}]
    answers = []
    for index in range(9):
        crowd.submit(chance.choice(PROMPTS), None, seed=index, **chance.choice(others))
        if index % 3 == 0:
            answers.append(crowd.submit(PROMPTS[1], adapters[0], **EVERYTHING))
        crowd.engine.step()
    crowd.finish()
    for answer in answers:
        assert [answer.text(0), answer.text(1)] == [alone.text(0), alone.text(1)]


def test_preempted_answers_are_the_same(make_engine, reader, base):
    """The cache has no room for all that runs."""
    options = EVERYTHING | {"stop_token_ids": (), "n": 1, "min_tokens": 40, "max_tokens": 40}
    prompts = [tuple(range(30 + 20 * index, 95 + 20 * index)) for index in range(12)]
    alone = Asker(make_engine(), reader, base)
    expected = [alone.ask(prompt, **options).text() for prompt in prompts]
    crowd = Asker(make_engine(), reader, base)
    together = [crowd.submit(prompt, **options) for prompt in prompts]
    crowd.finish()
    assert crowd.engine.scheduler.preemptions, "the test needs a smaller cache"
    assert [answer.text() for answer in together] == expected


def structured(asker: Asker, prompt=PROMPTS[0], **options) -> Answer:
    answer = asker.ask(prompt, **{"max_tokens": 60, "temperature": 1.0} | options)
    assert all(each.finish_reason == "stop" for each in answer.finished().values()), answer.items
    return answer


def test_choices_are_held_to_a_regex_or_a_choice(asker):
    regex = RegexOutput(regex=r"[a-f]{4}-\d{2}")
    answer = structured(asker, structured_output=regex, n=3, repetition_penalty=1.5, top_k=50)
    for index in range(3):
        assert re.fullmatch(regex.regex, answer.text(index))
    assert len({answer.text(index) for index in range(3)}) > 1
    choice = ChoiceOutput(choices=("red", "green", "größer"))
    drawn = structured(asker, structured_output=choice, n=8)
    assert {drawn.text(index) for index in range(8)} <= set(choice.choices)


def test_completions_of_text_may_be_structured(asker):
    schema = {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]}
    schema["additionalProperties"] = False
    form = SchemaOutput(json_schema=schema)
    answer = structured(asker, TextPrompt(text="The quick"), structured_output=form)
    assert re.fullmatch(r'\{"a": ?(true|false)\}', answer.text())


def test_a_complete_output_ends_before_min_tokens(asker):
    form = ChoiceOutput(choices=("a", "b"))
    answer = structured(asker, structured_output=form, min_tokens=30)
    assert answer.text() in ("a", "b")


def test_an_output_that_may_go_on_does_so_until_min_tokens(asker):
    form = RegexOutput(regex="[a-z]+")
    for seed in range(4):
        ending = {"min_tokens": 25, "logit_bias": {END: 100.0}}
        answer = structured(asker, structured_output=form, seed=seed, **ending)
        assert answer.finished()[0].completion_tokens == 26


def test_a_stop_token_may_end_a_structured_output(asker, tokenizer):
    [brace] = tokenizer("{")["input_ids"]
    found = ids_of(asker, PROMPTS[0], structured_output=JsonObjectOutput(), stop_token_ids=(brace,))
    assert found == [brace]


@pytest.mark.parametrize("adds", [True, False])
def test_a_chat_may_continue_its_last_message(asker, tokenizer, adds):
    messages = ({"role": "user", "content": "Count."}, {"role": "assistant", "content": "1 2 "})
    prompt = ChatPrompt(messages=messages, ending="final_message" if adds else "nothing")
    request, _ = asker.read(prompt)
    text = tokenizer.decode(request.prompt_tokens)
    assert text.endswith("assistant\n1 2 " if adds else "1 2 <|end|>\n")
    answer = asker.ask(prompt, max_tokens=4)
    expected = asker.ask(TextPrompt(text=text), max_tokens=4)
    assert answer.text() == expected.text()


def test_deltas_count_the_tokens_so_far(asker):
    answer = asker.ask(PROMPTS[1], max_tokens=12, n=2, temperature=1.0)
    for choice in range(2):
        counts = [
            each.completion_tokens
            for each in answer.items
            if isinstance(each, GenerationDelta) and each.choice == choice
        ]
        assert counts == sorted(counts)
        assert counts[0] >= 1
        assert counts[-1] <= answer.finished()[choice].completion_tokens
