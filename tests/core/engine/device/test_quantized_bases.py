"""A base that is quantized while it is loaded: what it says, with adapters and without."""

import pytest
import torch
from peft import PeftModel

from core.engine.device.runner import BaseLoader, Runner
from core.engine.engine import Engine
from core.engine.metrics import EngineMetrics
from core.engine.policy.scheduler import Scheduler
from core.engine.policy.step import Limits
from core.engine.precisions import ServedPrecisions
from core.engine.text.prompts import PromptReader
from core.errors import InvalidRequest
from core.models.load import load_base
from core.spec.base_model import BaseModelSpec
from core.spec.generation import GenerationRequest, SamplingSpec, TokenPrompt
from core.spec.strategy import LoraSpec, PrefixSpec, PromptSpec, QloraSpec
from tests.core.engine.asking import DecodedById, Said, next_logprobs, said_of
from tests.core.engine.bundles import Bundle, write_bundle
from tests.core.engine.own_weights import plain, quantized
from tests.core.engine.test_strategies import CLOSE_NATS, PROMPTS
from tests.core.tiny import save_base

GREEDY = SamplingSpec(max_tokens=6, temperature=0, seed=0, top_logprobs=0)
ADAPTERS = {
    "lora": LoraSpec(rank=4, alpha=8),
    "second lora": LoraSpec(rank=4, alpha=4),
    "third lora": LoraSpec(rank=4, alpha=2, target_modules="attention"),
    "dora": LoraSpec(rank=4, alpha=8, use_dora=True),
    "qlora": QloraSpec(rank=2, alpha=8),
    "prefix": PrefixSpec(virtual_tokens=5),
    "prompt": PromptSpec(virtual_tokens=5, init_text="Answer"),
}


@pytest.fixture(params=["nf4", "int8"])
def quantization(request) -> str:
    return request.param


def base_in(folder, quantization, model_type="llama") -> BaseModelSpec:
    stored = save_base(folder / "base", model_type, eos_token_id=None)
    return stored.model_copy(update={"quantization": quantization})


def ask(engine, reader, base: BaseModelSpec, asked: list[tuple[Bundle | None, tuple]]):
    """Return what is said to every prompt, all of them in one batch."""
    answers: list[list] = []
    for bundle, prompt in asked:
        ready, token_bytes = reader.read(
            GenerationRequest(
                id="r",
                base=base,
                adapter=bundle and bundle.ref,
                prompt=TokenPrompt(tokens=prompt),
                sampling=GREEDY,
            )
        )
        answers.append([])
        engine.submit(ready, DecodedById(ready, token_bytes), answers[-1].append)
    while engine.step():
        pass
    return [said_of(each) for each in answers]


def require_said(said: Said, model, prompt) -> None:
    expected_TV = next_logprobs(model, prompt, said.tokens)
    assert said.tokens == tuple(expected_TV.argmax(dim=-1).tolist())
    expected_T = expected_TV.max(dim=-1).values
    torch.testing.assert_close(torch.tensor(said.logprobs), expected_T, atol=CLOSE_NATS, rtol=0)


def test_adapters_of_every_kind_mix_on_it_as_peft_runs_them_on_bitsandbytes(
    tmp_path, store, make_engine, reader, quantization
):
    base = base_in(tmp_path, quantization)
    bundles = [
        write_bundle(tmp_path / name, store, base, strategy, seed=number)
        for number, (name, strategy) in enumerate(ADAPTERS.items())
    ]
    asked = [(bundle, prompt) for bundle in (None, *bundles) for prompt in PROMPTS]
    engine = make_engine(max_sequences=len(asked), max_adapters=len(bundles))
    said = ask(engine, reader, base, asked)
    for number, ((bundle, prompt), each) in enumerate(zip(asked, said, strict=True)):
        if number % len(PROMPTS) == 0:
            model = quantized(plain(base), quantization, tmp_path / f"reference-{number}")
            if bundle is not None:
                model = PeftModel.from_pretrained(model, bundle.folder).eval()
        require_said(each, model, prompt)


# the reference in int8 keeps GPT-2's own kind of layer, where PEFT finds out what the file lacks
@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False")
@pytest.mark.parametrize("model_type", ["gpt2", "gemma3_text", "phi3", "t5"])
def test_other_families_are_quantized_too_gpt2_with_its_own_kind_of_layer(
    tmp_path, store, make_engine, reader, quantization, model_type
):
    base = base_in(tmp_path, quantization, model_type)
    task = "seq2seq" if model_type == "t5" else "generation"
    bundle = write_bundle(tmp_path / "bundle", store, base, LoraSpec(rank=4), task)
    said, tuned = ask(make_engine(), reader, base, [(None, PROMPTS[0]), (bundle, PROMPTS[0])])
    model = quantized(plain(base, task), quantization, tmp_path / "reference")
    require_said(said, model, PROMPTS[0])
    require_said(tuned, PeftModel.from_pretrained(model, bundle.folder).eval(), PROMPTS[0])
    untouched = next_logprobs(plain(base, task), PROMPTS[0], said.tokens).max(dim=-1).values
    assert said.logprobs != pytest.approx(untouched.tolist(), abs=1e-3), "nothing was quantized"


def test_what_else_is_in_the_batch_changes_no_answer(tmp_path, make_engine, reader, quantization):
    """bitsandbytes' own eight-bit product rounds a row by what is large in the others."""
    base = base_in(tmp_path, quantization)
    alone = ask(make_engine(), reader, base, [(None, PROMPTS[0])])
    company = ask(make_engine(), reader, base, [(None, prompt) for prompt in PROMPTS])
    assert company[0].tokens == alone[0].tokens
    assert company[0].logprobs == pytest.approx(alone[0].logprobs, abs=1e-5)


def test_an_adapter_stays_on_the_base_that_it_was_trained_on(tmp_path, store, reader, quantization):
    base = base_in(tmp_path, quantization)
    plain_base = base.model_copy(update={"quantization": None})
    for own, other in ((base, plain_base), (plain_base, base)):
        folder = tmp_path / f"of-{own.quantization}"
        bundle = write_bundle(folder, store, own, LoraSpec(rank=2))
        with pytest.raises(InvalidRequest, match=f"quantized to {quantization}") as caught:
            reader.read(
                GenerationRequest(
                    id="r",
                    base=other,
                    adapter=bundle.ref,
                    prompt=TokenPrompt(tokens=(1,)),
                    sampling=GREEDY,
                )
            )
        assert caught.value.code == "adapter_of_another_base"


def test_a_base_is_not_quantized_twice(tmp_path, quantization):
    once = base_in(tmp_path, "nf4")
    load_base(once, torch.float32, torch.device("cpu")).save_pretrained(tmp_path / "stored")
    twice = BaseModelSpec(id="twice", source=str(tmp_path / "stored"), quantization=quantization)
    with pytest.raises(InvalidRequest, match="are already quantized"):
        load_base(twice, torch.float32, torch.device("cpu"))


def test_it_runs_in_bf16_as_well(tmp_path, store, files, quantization):
    base = base_in(tmp_path, quantization)
    bundle = write_bundle(tmp_path / "bundle", store, base, LoraSpec(rank=4, alpha=8))
    loader = BaseLoader(torch.device("cpu"), files.folder, cache_bytes=2**19, max_adapters=1)
    reader = PromptReader(files, loader.cache_tokens, precisions=ServedPrecisions("bf16"))
    scheduler = Scheduler(Limits(8, 64, 48, max_bases=1, max_adapters=1), loader.pool)
    runner = Runner(loader.load, max_bases=1)
    engine = Engine(scheduler, runner, EngineMetrics(scheduler, runner, loader.adapters))
    asked = [(each, prompt) for each in (None, bundle) for prompt in PROMPTS]
    for (each, prompt), said in zip(asked, ask(engine, reader, base, asked), strict=True):
        model = load_base(base, torch.bfloat16, torch.device("cpu"))
        if each is not None:
            model = PeftModel.from_pretrained(model, each.folder).eval()
        expected_T = next_logprobs(model, prompt, said.tokens).float().max(dim=-1).values
        differences_T = (torch.tensor(said.logprobs) - expected_T).abs()
        assert differences_T.mean() < 0.1, differences_T
