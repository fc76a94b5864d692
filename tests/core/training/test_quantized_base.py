"""A run on a base that its catalog entry quantizes, and the next run from its bundle."""

import shutil

import pytest
import torch
from bitsandbytes.nn import Linear4bit, Linear8bitLt

from core.artifacts.manifest import read_manifest
from core.errors import InvalidRequest
from core.spec.bundle import BundleRef
from core.spec.events import StepDone
from core.spec.strategy import (
    BottleneckSpec,
    FullSpec,
    Ia3Spec,
    LoraSpec,
    PrefixSpec,
    QloraSpec,
)
from core.spec.workspace import Workspace
from core.training.model import load_model
from core.training.recipe import train

LAYERS = {"nf4": Linear4bit, "int8": Linear8bitLt}


@pytest.fixture(params=LAYERS)
def quantized_job(request, job):
    """The builder `job`, on the same base quantized."""

    def build(*args, **hyper):
        spec = job(*args, **hyper)
        base = spec.base.model_copy(update={"quantization": request.param})
        return spec.model_copy(update={"base": base})

    return build


def run(spec, workspace):
    return list(train(spec, workspace, lambda: False))


def losses(events):
    return [event.loss for event in events if isinstance(event, StepDone)]


@pytest.mark.parametrize(
    "strategy",
    [
        LoraSpec(rank=4, alpha=8),
        pytest.param(LoraSpec(rank=4, use_dora=True), marks=pytest.mark.slow),
        QloraSpec(rank=4, quantization="fp4"),
        pytest.param(BottleneckSpec(reduction_factor=4), marks=pytest.mark.slow),
        pytest.param(PrefixSpec(virtual_tokens=4), marks=pytest.mark.slow),
        Ia3Spec(),
    ],
    ids=["lora", "dora", "qlora", "bottleneck", "prefix", "ia3"],
)
def test_it_is_trained_as_it_is_quantized_and_says_so(quantized_job, workspace, tmp_path, strategy):
    spec = quantized_job(strategy, epochs=4, learning_rate=2e-2)
    events = run(spec, workspace)
    assert sum(losses(events)[-2:]) < sum(losses(events)[:2])
    manifest = read_manifest(workspace.bundle_folder)
    assert manifest.base_quantization == spec.base.quantization

    child = Workspace(folder=tmp_path / "child")
    child.folder.mkdir()
    shutil.copy(workspace.train_file, child.folder)
    shutil.copytree(workspace.bundle_folder, child.parent_folder)
    parent = BundleRef(key="bundles/parent.zip", sha256="0" * 64)
    further = spec.model_copy(update={"parent": parent})
    assert losses(run(further, child))[0] < losses(events)[0]


def test_every_linear_layer_of_the_blocks_is_quantized_whatever_the_strategy_asks_for(
    quantized_job, workspace
):
    spec = quantized_job(QloraSpec(rank=4, quantization="fp4"))
    adapted = load_model(spec, workspace, None, torch.float32, torch.device("cpu"))
    adapted.remove()
    layer_class = LAYERS[spec.base.quantization]
    linear = [m for m in adapted.model.modules() if isinstance(m, torch.nn.Linear)]
    quantized = [m for m in linear if isinstance(m, layer_class)]
    assert len(quantized) == len(linear) - 1, "only the head is dense"
    if spec.base.quantization == "nf4":
        assert {layer.weight.quant_type for layer in quantized} == {"nf4"}


@pytest.mark.parametrize(
    ("strategy", "param"),
    [
        (FullSpec(), "strategy.type"),
        (
            LoraSpec(target_modules=("q_proj",), modules_to_save=("mlp",)),
            "strategy.modules_to_save",
        ),
    ],
)
def test_quantized_weights_are_not_trained(quantized_job, workspace, strategy, param):
    with pytest.raises(InvalidRequest, match="quantized") as caught:
        run(quantized_job(strategy), workspace)
    assert caught.value.param == param
