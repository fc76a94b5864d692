"""The same adapter on the same base, loaded and run by PEFT: what an import is compared with."""

# T tokens, V vocabulary, N labels

import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import peft
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel

from core.adapter_files.refusal import RefusedAdapter
from core.batching.rows import LabelledRow, Row, SourceTargetRow
from core.spec.adapter_file import CONFIG_FILE, WEIGHTS_FILE
from core.spec.parity import nats
from core.training.replayed import Replay


def write_for_peft(
    folder: Path, method: str, task: str, fields: Mapping[str, Any], state: Mapping[str, Tensor]
) -> None:
    """Write an adapter in PEFT's current layout and names."""
    folder.mkdir(parents=True)
    config = {"peft_type": method, "task_type": task, "inference_mode": True, **fields}
    (folder / CONFIG_FILE).write_text(json.dumps(config), encoding="utf-8")
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, folder / WEIGHTS_FILE)


@torch.no_grad()
def peft_figures(
    model: PreTrainedModel, folder: Path, replays: Sequence[Replay], *, multi_label: bool
) -> list[list[float]]:
    """Return PEFT's log-probabilities of the targets of each row, in nats. Changes `model`.

    Raises RefusedAdapter if PEFT itself cannot load the adapter, or gives no finite numbers.
    """
    try:
        with warnings.catch_warnings():  # of fields that were checked before
            warnings.simplefilter("ignore")
            loaded = peft.PeftModel.from_pretrained(model, str(folder)).eval()
    except (ValueError, KeyError, RuntimeError, TypeError, AttributeError) as error:
        raise RefusedAdapter(f"PEFT cannot load the adapter: {str(error)[:500]}") from error
    figures = [_figures(loaded, replay, multi_label) for replay in replays]
    if not all(torch.tensor(each).isfinite().all() for each in figures):
        raise RefusedAdapter("With this adapter, the model's log-probabilities are not finite.")
    return figures


def _figures(model: Any, replay: Replay, multi_label: bool) -> list[float]:
    row = replay.row
    match row:
        case LabelledRow():
            logits_N = _logits(model, input_ids=row.tokens)
            scores_N = logits_N.sigmoid() if multi_label else logits_N.softmax(dim=-1)
            return [nats(probability) for probability in scores_N.tolist()]
        case SourceTargetRow():
            start = model.config.decoder_start_token_id
            read = (start, *row.target[:-1])
            logits_TV = _logits(model, input_ids=row.source, decoder_input_ids=read)
            return _of_targets(logits_TV[-len(row.target) :], row.target)
        case Row():
            # virtual tokens of a soft prompt have logits, too
            logits_TV = _logits(model, input_ids=row.tokens)[-len(row.tokens) :]
            found = _of_targets(logits_TV[:-1], row.tokens[1:])
            return [each for each, trained in zip(found, row.trained[1:], strict=True) if trained]
        case _:
            raise TypeError(f"no rule for a {type(row).__name__}")


def _logits(model: Any, **tokens: Sequence[int]) -> Tensor:
    """Return the logits of one sequence in fp32."""
    device = model.device
    inputs = {name: torch.tensor([list(ids)], device=device) for name, ids in tokens.items()}
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    logits: Tensor = model(**inputs).logits[0]
    return logits.float()


def _of_targets(logits_TV: Tensor, targets: Sequence[int]) -> list[float]:
    targets_T = torch.tensor(list(targets), device=logits_TV.device)
    found_T = logits_TV.log_softmax(dim=-1).gather(1, targets_T[:, None])[:, 0]
    return [float(each) for each in found_T]
