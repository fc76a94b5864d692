"""What is refused from a base's config alone, before any weight is read."""

import pytest
import torch
from transformers import LlamaConfig

from core.catalog import strategies
from core.errors import InvalidRequest
from core.models.load import outline
from core.spec.base_model import BaseModelSpec
from core.spec.events import PhaseStarted
from core.spec.job import JobSpec
from core.spec.objective import ClassificationSpec
from core.spec.strategy import (
    BottleneckSpec,
    FullSpec,
    Ia3Spec,
    LoraSpec,
    PrefixSpec,
    PromptSpec,
    QloraSpec,
)
from core.training.mask import audit_file
from core.training.preflight import require_fit
from core.training.recipe import train
from tests.core.tiny import DECODERS, ENCODER_DECODERS, ENCODERS, tiny_config, tiny_tokenizer

FAMILY_TYPES = (*DECODERS, *ENCODERS, *ENCODER_DECODERS)
LABELS = ClassificationSpec(labels=("good", "bad"))
STRATEGIES = [
    LoraSpec(rank=2),
    LoraSpec(rank=2, use_dora=True),
    QloraSpec(rank=2),
    FullSpec(),
    BottleneckSpec(placement="houlsby"),
    PrefixSpec(virtual_tokens=4),
    PromptSpec(virtual_tokens=4),
    PromptSpec(virtual_tokens=4, init_text="Answer briefly."),
    Ia3Spec(),
]


def test_every_strategy_is_tried():
    assert {strategy.type for strategy in STRATEGIES} == set(strategies.STRATEGIES)


def job(model_type="llama", strategy=None, **fields):
    if model_type in ENCODERS:
        fields = {"task": "classification", "objective": LABELS} | fields
    if model_type in ENCODER_DECODERS:
        fields = {"task": "seq2seq"} | fields
    base = BaseModelSpec(id="base", source="/nowhere")
    return JobSpec(base=base, strategy=strategy or LoraSpec(rank=2), seed=1, **fields)


def refusal(model_type="llama", strategy=None, changes=None, **fields):
    config = tiny_config(model_type, **(changes or {}))
    with pytest.raises(InvalidRequest) as caught:
        require_fit(job(model_type, strategy, **fields), config, tiny_tokenizer(model_type))
    return caught.value


@pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda strategy: strategy.type)
@pytest.mark.parametrize("model_type", FAMILY_TYPES)
def test_every_possible_cell_fits_and_leaves_the_generator_alone(model_type, strategy):
    if model_type == "modernbert" and strategy.type == "prefix":
        assert refusal(model_type, strategy).code == "impossible_combination"
        return
    before = torch.get_rng_state()
    require_fit(job(model_type, strategy), tiny_config(model_type), tiny_tokenizer(model_type))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_classifying_decoder_fits():
    require_fit(
        job("llama", task="classification", objective=LABELS),
        tiny_config("llama"),
        tiny_tokenizer(),
    )


@pytest.mark.parametrize(
    ("strategy", "param", "code", "says"),
    [
        (
            LoraSpec(rank=2, target_modules=("q_porj",)),
            "strategy.target_modules",
            "unknown_target_module",
            "q_proj",
        ),
        (
            QloraSpec(rank=2, target_modules=("lm_head",)),
            "strategy.target_modules",
            "unsupported_target_module",
            "modules_to_save",
        ),
        (
            LoraSpec(rank=2, rank_pattern={"v_porj": 4}),
            "strategy.rank_pattern",
            "unknown_target_module",
            "v_proj",
        ),
        (
            LoraSpec(rank=2, alpha_pattern={"v_porj": 4}),
            "strategy.alpha_pattern",
            "unknown_target_module",
            "v_proj",
        ),
        (LoraSpec(rank=17), "strategy.rank", "rank_above_width", "width 16 of model.layers.0"),
        (
            LoraSpec(rank=2, rank_pattern={"v_proj": 17}),
            "strategy.rank_pattern",
            "rank_above_width",
            "width 16",
        ),
        (
            LoraSpec(rank=2, modules_to_save=("lm_haed",)),
            "strategy.modules_to_save",
            "unknown_target_module",
            "lm_head",
        ),
        (
            QloraSpec(rank=2, target_modules=("q_proj",), modules_to_save=("mlp",)),
            "strategy.modules_to_save",
            "unsupported_target_module",
            "mlp",
        ),
        (
            BottleneckSpec(reduction_factor=33),
            "strategy.reduction_factor",
            "invalid_request",
            "32 features",
        ),
        (PrefixSpec(virtual_tokens=249), "strategy.virtual_tokens", "invalid_value", "256"),
        (PromptSpec(virtual_tokens=1000), "strategy.virtual_tokens", "invalid_value", "256"),
    ],
)
def test_a_strategy_that_does_not_fit_is_refused_with_its_field(strategy, param, code, says):
    error = refusal(strategy=strategy)
    assert (error.param, error.code) == (param, code)
    assert says in error.message


@pytest.mark.parametrize("kind", [LoraSpec, Ia3Spec])
def test_a_quantized_module_is_not_trained_whole(kind):
    strategy = kind(target_modules=("q_proj",), modules_to_save=("mlp",))
    spec = job(strategy=strategy)
    base = spec.base.model_copy(update={"quantization": "nf4"})
    with pytest.raises(InvalidRequest, match=r"mlp.* is quantized") as caught:
        require_fit(
            spec.model_copy(update={"base": base}), tiny_config("llama"), tiny_tokenizer("llama")
        )
    assert caught.value.param == "strategy.modules_to_save"


def test_qlora_trains_whole_what_it_does_not_quantize():
    strategy = QloraSpec(rank=2, modules_to_save=("lm_head", "embed_tokens", "norm"))
    require_fit(job(strategy=strategy), tiny_config("llama"), tiny_tokenizer())


@pytest.mark.parametrize(
    ("model_type", "fields", "param"),
    [
        ("llama", {"task": "seq2seq"}, "task"),
        ("bert", {"task": "generation"}, "task"),
        ("t5", {"task": "classification", "objective": LABELS}, "task"),
        ("llama", {"objective": LABELS}, "objective"),
        ("modernbert", {"strategy": PrefixSpec()}, "strategy.type"),
        (
            "llama",
            {
                "strategy": FullSpec(),
                "changes": {"quantization_config": {"quant_method": "bitsandbytes"}},
            },
            "strategy.type",
        ),
    ],
)
def test_an_impossible_combination_is_refused_where_the_api_could_not_look(
    model_type, fields, param
):
    error = refusal(model_type, **fields)
    assert (error.param, error.code) == (param, "impossible_combination")


def test_a_quantization_that_cannot_be_trained_is_refused():
    error = refusal(changes={"quantization_config": {"quant_method": "gptq"}})
    assert (error.param, error.code) == ("model", "unsupported_model")


def test_an_outline_of_a_large_model_has_no_weights_and_leaves_the_config():
    config = LlamaConfig(num_hidden_layers=32, hidden_size=4096, vocab_size=128_256)
    model = outline(
        BaseModelSpec(id="large", source="/nowhere"), config, "classification", labels=7
    )
    assert model.score.weight.shape == (7, 4096)
    assert {weight.device.type for weight in model.parameters()} == {"meta"}
    assert config.num_labels == 2


def test_a_run_that_cannot_fit_ends_before_its_data_are_validated(base_spec, workspace):
    spec = JobSpec(base=base_spec, strategy=LoraSpec(target_modules=("q_porj",)), seed=1)
    events = []
    with pytest.raises(InvalidRequest, match="q_proj"):
        events.extend(train(spec, workspace, lambda: False))
    assert events == [PhaseStarted(phase="preparing data")]


def test_a_mask_is_not_shown_of_a_job_that_cannot_be_done(base_spec, workspace):
    spec = JobSpec(base=base_spec, strategy=PrefixSpec(virtual_tokens=1024), seed=1)
    with pytest.raises(InvalidRequest) as caught:
        audit_file(spec, workspace)
    assert caught.value.param == "strategy.virtual_tokens"
