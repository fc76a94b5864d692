"""T5 and BART answer as `generate` does, whatever stands beside them in the batch."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    AutoModelForSeq2SeqLM,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from core.engine.text.answers import Detokenizer
from core.errors import InvalidRequest
from core.models.load import load_tokenizer
from core.spec.base_model import BaseModelSpec
from core.spec.generation import (
    ChatPrompt,
    ChoiceFinished,
    GenerationDelta,
    GenerationRequest,
    GenerationStarted,
    Prompt,
    SamplingSpec,
    TextPrompt,
    TokenPrompt,
)
from tests.core.tiny import ENCODER_DECODERS, save_base

TEXTS = ("abcd", "A much longer text, of many more tokens than the others.", "Hi", "x y z")
MAX_TOKENS = 10


@dataclass
class Served:
    """A base and what the engine says with it."""

    base: BaseModelSpec
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    ask_all: Callable[..., list[list]]

    def ask(self, *prompts: Prompt, **sampling) -> list[list]:
        return self.ask_all(self.base, prompts, **sampling)

    def generated(self, text: str) -> str:
        ids = self.tokenizer(text, return_tensors="pt")["input_ids"]
        output = self.model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=MAX_TOKENS
            + (self.model.generation_config.forced_bos_token_id is not None),
            do_sample=False,
            forced_eos_token_id=None,  # it would replace the last token of an unfinished text
        )
        return self.tokenizer.decode(output[0], skip_special_tokens=True)


@pytest.fixture
def ask_all(make_engine, reader) -> Callable[..., list[list]]:
    def ask_all(base: BaseModelSpec, prompts: tuple[Prompt, ...], **sampling) -> list[list]:
        engine = make_engine()
        answers = []
        spec = SamplingSpec(**{"max_tokens": MAX_TOKENS, "temperature": 0, "seed": 1} | sampling)
        for prompt in prompts:
            ready, token_bytes = reader.read(
                GenerationRequest(id="r", base=base, prompt=prompt, sampling=spec)
            )
            answers.append([])
            engine.submit(ready, Detokenizer(ready, token_bytes), answers[-1].append)
        while engine.step():
            pass
        return answers

    return ask_all


@pytest.fixture(params=[*ENCODER_DECODERS, "bart with a forced first token"])
def served(request: pytest.FixtureRequest, tmp_path: Path, ask_all) -> Served:
    family, *forced = request.param.split(" ", 1)
    base = save_base(tmp_path, family)
    if forced:
        config = GenerationConfig.from_pretrained(tmp_path)
        config.update(forced_bos_token_id=300)
        config.save_pretrained(tmp_path)
    return _served(base, ask_all)


def _served(base: BaseModelSpec, ask_all) -> Served:
    model = AutoModelForSeq2SeqLM.from_pretrained(base.source).eval()
    return Served(base, model, load_tokenizer(base), ask_all)


def text_of(items: list, choice: int = 0) -> str:
    return "".join(
        each.text for each in items if isinstance(each, GenerationDelta) and each.choice == choice
    )


def test_a_batch_of_texts_is_answered_as_generate_answers_each(served):
    answers = served.ask(*(TextPrompt(text=text) for text in TEXTS))
    for text, items in zip(TEXTS, answers, strict=True):
        assert text_of(items) == served.generated(text)
        [finished] = [each for each in items if isinstance(each, ChoiceFinished)]
        assert finished.completion_tokens <= MAX_TOKENS


def test_a_chat_without_a_template_is_its_question_as_training_reads_it(served):
    question = {"role": "user", "content": TEXTS[1]}
    system = {"role": "system", "content": "Answer."}
    plain, instructed = served.ask(
        ChatPrompt(messages=(question,)), ChatPrompt(messages=(system, question))
    )
    assert text_of(plain) == served.generated(TEXTS[1])
    assert text_of(instructed) == served.generated(f"Answer.\n\n{TEXTS[1]}")
    tokens = len(served.tokenizer(TEXTS[1])["input_ids"])
    assert plain[0] == GenerationStarted(prompt_tokens=tokens, hardware="fp32", precision="fp32")


def test_several_turns_are_refused_without_a_template(served):
    messages = tuple({"role": role, "content": "Hello"} for role in ("user", "assistant", "user"))
    with pytest.raises(InvalidRequest, match="chat template") as caught:
        served.ask(ChatPrompt(messages=messages))
    assert caught.value.param == "messages"


def test_choices_of_one_prompt_go_apart_and_repeat_by_their_seed(served):
    prompt = TextPrompt(text=TEXTS[1])
    [alone] = served.ask(prompt, n=3, temperature=1.0)
    texts = [text_of(alone, choice) for choice in range(3)]
    assert len(set(texts)) == 3
    crowd = served.ask(TextPrompt(text=TEXTS[0]), prompt, n=3, temperature=1.0)
    assert [text_of(crowd[1], choice) for choice in range(3)] == texts


def test_source_and_target_have_limits_of_their_own(tmp_path, ask_all):
    served = _served(save_base(tmp_path, "bart", max_position_embeddings=32), ask_all)
    [items] = served.ask(TokenPrompt(tokens=(40,) * 32), max_tokens=None)
    [finished] = [each for each in items if isinstance(each, ChoiceFinished)]
    assert finished.completion_tokens <= 30
    for tokens, wanted in ((33, 1), (3, 31)):
        with pytest.raises(InvalidRequest) as caught:
            served.ask(TokenPrompt(tokens=(40,) * tokens), max_tokens=wanted)
        assert caught.value.code == "context_length_exceeded"


@pytest.fixture
def sentencepiece() -> PreTrainedTokenizerFast:
    """A vocabulary as T5 has it: the first word of a text too is spelled with a space before it."""
    names = ["<pad>", "</s>", "<unk>"]
    words = [*names, "\u2581", *(f"\u2581w{i}" for i in range(300))]
    tokenizer = Tokenizer(models.Unigram([(word, -1.0) for word in words], unk_id=2))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    named = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **named)


def test_a_text_does_not_begin_with_the_space_of_its_first_word(tmp_path, ask_all, sentencepiece):
    base = save_base(tmp_path, "t5")
    sentencepiece.save_pretrained(tmp_path)
    served = _served(base, ask_all)
    texts = [f"w{index} w{index + 20}" for index in range(12)]
    answers = served.ask(*(TextPrompt(text=text) for text in texts))
    expected = [served.generated(text) for text in texts]
    assert [text_of(items) for items in answers] == expected
    assert any(text.startswith("w") for text in expected)
