"""Adapters that do nothing, or the wrong thing, after loading: each as its public report tells.

docs/lab-notes.md lists the reports. An adapter is served as its author meant it, or refused with
the reason; nothing in it is ignored without a word.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from core.adapter_files.refusal import RefusedAdapter
from core.errors import InvalidRequest
from core.made_models.names import named_tensors
from core.made_models.run import NOTHING_LEARNED
from core.spec.adapter_file import TensorInfo
from core.spec.making import MadeBundle
from tests.core.made_models.judging import judged
from tests.core.made_models.made_by_peft import KINDS, imported, make

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
State = dict[str, torch.Tensor]


@pytest.fixture
def saved(tmp_path: Path, base_of: Callable[..., Any]) -> Callable[..., Any]:
    """Return a builder: an adapter of a kind, changed after it was saved, and then imported."""

    def build(
        kind: str,
        state: Callable[[State], State] = lambda state: state,
        base_options: dict[str, Any] | None = None,
        **config: Any,
    ) -> MadeBundle:
        base = base_of(KINDS[kind].family)
        make(KINDS[kind].config(), base, tmp_path / "saved")
        path = tmp_path / "saved" / WEIGHTS
        save_file({n: t.clone() for n, t in state(load_file(path)).items()}, path)
        config_file = tmp_path / "saved" / CONFIG
        config_file.write_text(json.dumps({**json.loads(config_file.read_text()), **config}))
        if base_options:
            base = base_of(KINDS[kind].family, seed=1, **base_options)
        return imported(tmp_path, base, tmp_path / "saved")

    return build


def renamed(change: Callable[[str], str]) -> Callable[[State], State]:
    return lambda state: {change(name): tensor for name, tensor in state.items()}


def effect_of(found: MadeBundle) -> float:
    whole = next(each for each in found.reference.ablations if each.is_whole)
    pairs = zip(found.reference.figures, whole.figures, strict=True)
    return max(abs(a - b) for a, b in pairs)


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("lora", lambda name: name.removeprefix("base_model.model.")),
        ("lora", lambda name: f"base_model.model.{name}"),
        ("lora", lambda name: name.replace(".weight", ".default.weight")),
        ("lora", lambda name: name.replace("lora_A.", "lora_A.my_adapter.")),
        ("lora", lambda name: name.replace("model.layers", "_orig_mod.model.layers")),
        ("lora", lambda name: name.replace(".layers.", ".layers._fsdp_wrapped_module.")),
        ("lora", lambda name: name.replace("base_model.model.model.", "base_model.model.")),
        ("dora", lambda name: name.replace("vector", "vector.default.weight")),
        (
            "modules_to_save",
            lambda name: name.replace("lm_head", "lm_head.modules_to_save.default"),
        ),
        ("ia3", lambda name: name.replace("ia3_l", "ia3_l.default")),
    ],
    ids=[
        "no prefix",
        "prefix twice",
        "name of the adapter",
        "name of the adapter in A only",
        "torch.compile",
        "FSDP",
        "trained on the backbone",
        "DoRA's vector as a layer",
        "wrapper of a saved module",
        "(IA)³ with a name",
    ],
)
def test_other_names_mean_the_same(
    kind: str, change: Callable[[str], str], saved: Callable[..., Any]
) -> None:
    """PEFT ignores such tensors without an error, and the adapter does nothing."""
    assert effect_of(saved(kind, renamed(change))) > 1e-2


def swap(state: State) -> State:
    return {
        name.replace("lora_A", "x").replace("lora_B", "lora_A").replace("x", "lora_B"): tensor
        for name, tensor in state.items()
    }


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "A and B swapped": ({"state": swap}, "swapped"),
    "unknown tensor": ({"state": lambda s: s | {"x.y": torch.ones(2)}}, "no module of this base"),
    "target of another architecture": (
        {"state": renamed(lambda name: name.replace("q_proj", "query_key_value"))},
        "no module of this base",
    ),
    "B is missing": (
        {
            "state": lambda s: {
                n: t for n, t in s.items() if "layers.0.self_attn.q_proj.lora_B" not in n
            }
        },
        "lacks lora_B",
    ),
    "rank of the config lies": ({"r": 3}, "states rank 3"),
    "rank of a pattern lies": ({"rank_pattern": {"q_proj": 2}}, "states rank 2"),
    "DoRA without its vectors": ({"use_dora": True}, "lacks lora_magnitude_vector"),
    "no LoRA at all": (
        {"state": lambda s: {"base_model.model.lm_head.weight": torch.ones(320, 32)}},
        "would do nothing",
    ),
    "NaN": ({"state": lambda s: {n: t * float("nan") for n, t in s.items()}}, "not finite"),
    "infinite": ({"state": lambda s: {n: t / 0 for n, t in s.items()}}, "not finite"),
    "other width": ({"base_options": {"hidden_size": 64}}, "another base"),
    "fewer layers": ({"base_options": {"num_hidden_layers": 1}}, "no module of this base"),
    "other vocabulary": (
        {
            "state": lambda s: (
                s | {"base_model.model.model.embed_tokens.weight": torch.ones(400, 32)}
            )
        },
        "vocabulary has 400 tokens",
    ),
    "trained bias": (
        {
            "state": lambda s: (
                s
                | {
                    "base_model.model.model.layers.0.self_attn.q_proj.base_layer.bias": torch.ones(
                        32
                    )
                }
            )
        },
        "trained bias",
    ),
    "task of another base": ({"task_type": "SEQ_2_SEQ_LM"}, "does not support"),
    "two names of one tensor": (
        {"state": lambda s: s | {n.removeprefix("base_model.model."): t for n, t in s.items()}},
        "the same part",
    ),
}


@pytest.mark.parametrize("report", REFUSED)
def test_adapter_that_would_do_something_else_is_refused(
    report: str, saved: Callable[..., Any]
) -> None:
    change, reason = REFUSED[report]
    with pytest.raises(InvalidRequest, match=reason):
        saved("lora", **change)


def test_untrained_adapter_is_taken_with_a_warning(saved: Callable[..., Any]) -> None:
    found = saved("lora", lambda s: {n: t * ("lora_A" in n) for n, t in s.items()})
    assert NOTHING_LEARNED in found.warnings and effect_of(found) < 1e-4


def test_saved_embeddings_of_the_base_change_nothing(
    saved: Callable[..., Any], tmp_path: Path
) -> None:
    """PEFT saves them beside the adapter if the vocabulary may have been resized."""

    def with_embeddings(state: State) -> State:
        base = load_file(tmp_path / "base-llama-0" / "model.safetensors")
        name = "model.embed_tokens.weight"
        return state | {f"base_model.model.{name}": base[name]}

    assert effect_of(saved("lora", with_embeddings)) > 1e-2


def test_classifier_without_the_pooler_of_its_training_is_refused(
    tmp_path: Path, base_of: Callable[..., Any]
) -> None:
    """The base has none, so PEFT draws one at random whenever the adapter is loaded."""
    config = peft.LoraConfig(task_type="SEQ_CLS", target_modules=["query"])
    base = base_of("bert")
    make(config, base, tmp_path / "saved")
    with pytest.raises(RefusedAdapter, match="lost"):
        imported(tmp_path, base, tmp_path / "saved")


def test_biases_that_peft_trained_are_refused(tmp_path: Path, base_of: Callable[..., Any]) -> None:
    base = base_of("bert")
    for bias in ("all", "lora_only"):
        config = peft.LoraConfig(task_type="SEQ_CLS", target_modules=["query"], bias=bias)
        make(config, base, tmp_path / bias / "saved")
        with pytest.raises(RefusedAdapter, match="a trained bias"):
            imported(tmp_path / bias, base, tmp_path / bias / "saved")


def test_labels_have_the_names_and_the_order_of_the_owner(
    tmp_path: Path, base_of: Callable[..., Any]
) -> None:
    kind = KINDS["classifier on a decoder"]
    base = base_of(kind.family)
    make(kind.config(), base, tmp_path / "saved")
    found = imported(tmp_path, base, tmp_path / "saved", names=("b", "a", "c"), multi_label=True)
    assert found.tuned.objective.model_dump()["labels"] == ("b", "a", "c")
    assert found.tuned.objective.model_dump()["multi_label"]
    (tmp_path / "again").mkdir()
    with pytest.raises(RefusedAdapter, match="head has 3 labels"):
        imported(tmp_path / "again", base, tmp_path / "saved", names=("b", "a"))


def test_an_alpha_of_zero_is_refused_with_the_cure(saved: Callable[..., MadeBundle]) -> None:
    """A trainer wrote it into the config, and the adapter did nothing."""
    with pytest.raises(RefusedAdapter, match=r"would do nothing\. Write the alpha of its training"):
        saved("lora", lora_alpha=0)


def test_a_path_with_more_in_front_than_the_base_has_is_refused(
    saved: Callable[..., MadeBundle],
) -> None:
    """Trained on a model for images and texts: a server loaded it and answered as the base."""
    longer = renamed(lambda name: name.replace("model.layers", "language_model.layers"))
    with pytest.raises(RefusedAdapter, match="is no module of this base"):
        saved("lora", longer)


@pytest.mark.filterwarnings("ignore:Adapter name .lora. should not:UserWarning")
def test_an_adapter_may_be_called_lora(
    tmp_path: Path, base_of: Callable[..., Any], ours: list[tuple[float, ...]]
) -> None:
    """PEFT puts it into a folder of this name, and could not find its tensors again."""
    base = base_of("llama")
    model = AutoModelForCausalLM.from_pretrained(base.source, dtype=torch.float32)
    adapted = peft.get_peft_model(model, KINDS["lora"].config(), adapter_name="lora")
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.1)
    adapted.save_pretrained(str(tmp_path / "saved"))
    assert not (tmp_path / "saved" / WEIGHTS).exists()
    found = imported(tmp_path, base, tmp_path / "saved/lora")
    assert judged(found, ours[0]).status == "passed"


def test_a_module_may_have_weight_in_its_name() -> None:
    """PEFT put the name of the adapter into that of the module, and ignored the tensors."""
    path = "model.layers.0.weighted_averaging.weight_proj"
    tensors = [
        TensorInfo(name=f"base_model.model.{path}.lora_{part}.weight", dtype="F32", shape=(2, 2))
        for part in "AB"
    ]
    named, warnings = named_tensors(tensors, [path])
    assert [(each.path, each.part) for each in named] == [(path, "lora_A"), (path, "lora_B")]
    assert not warnings
