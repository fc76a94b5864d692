"""A QLoRA that PEFT has trained: taken in, judged, trained further as qlora, and taken away."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from core.spec.strategy import LoraSpec, QloraSpec
from tests.core.made_models.continuing import continued
from tests.core.made_models.exporting import require_exports
from tests.core.made_models.judging import judged
from tests.core.made_models.made_by_peft import imported
from tests.core.made_models.trained_qlora import train_qlora

HEADS = {"num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 16}
"""bitsandbytes cannot repack layers narrower than 32."""


def test_trained_qlora_is_taken_trained_further_and_exported(
    tmp_path: Path, base_of: Callable[..., Any], ours: list[tuple[float, ...]]
) -> None:
    base = base_of("llama", hidden_size=64, intermediate_size=128, **HEADS)
    losses = train_qlora(base, tmp_path / "saved")
    assert losses[-1] < losses[0] / 2
    found = imported(tmp_path, base, tmp_path / "saved")
    strategy = found.tuned.strategy
    assert isinstance(strategy, LoraSpec) and strategy.rank_pattern == {"down_proj": 6}
    assert strategy.modules_to_save == ("lm_head",)
    parity = judged(found, ours[0])
    assert parity.status == "passed", parity
    assert parity.max_difference_nats is not None and parity.max_difference_nats < 1e-3
    require_exports(found, tmp_path / "bundle", tmp_path / "out")

    qlora = QloraSpec(**strategy.model_dump(exclude={"type"}))
    further, folder = continued(tmp_path, found, qlora)
    assert further.reference.quantization_gap_nats, "it was trained on a quantized base"
    require_exports(further, folder, tmp_path / "further")
