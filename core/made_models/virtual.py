"""Virtual tokens of PEFT as `PrefixSpec` and `PromptSpec`.

PEFT saves the computed embeddings, so P-tuning is a soft prompt, and a prefix with a projection is
one without.
"""

from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedModel

from core.adapter_files.refusal import RefusedAdapter
from core.made_models.expressed import Expressed, Groups, saved_names, unexpected
from core.made_models.names import PROMPT
from core.spec.adapter_file import Method
from core.spec.strategy import PrefixSpec, PromptSpec


def express_virtual(
    method: Method, fields: Mapping[str, Any], groups: Groups, model: PreTrainedModel
) -> Expressed:
    """Return the adapter as virtual tokens; RefusedAdapter if it does not fit the model."""
    found = groups.get(PROMPT, {}).get(PROMPT)
    if found is None or len(found.shape) != 2:
        raise RefusedAdapter("The adapter has no prompt_embeddings of virtual tokens.")
    tokens = fields.get("num_virtual_tokens")
    if not isinstance(tokens, int):
        raise RefusedAdapter("adapter_config.json lacks num_virtual_tokens.")
    rows, width = found.shape
    is_prefix = method == "PREFIX_TUNING"
    copies = 1 if is_prefix else fields.get("num_transformer_submodules") or 1
    if rows != tokens * copies:
        raise RefusedAdapter(
            f"adapter_config.json states {tokens} virtual tokens, but prompt_embeddings has {rows} "
            "rows."
        )
    stated = fields.get("token_dim", width)
    if is_prefix:
        stated *= 2 * fields.get("num_layers", 1)
    if stated != width:
        raise RefusedAdapter(
            f"adapter_config.json states {stated} numbers for each virtual token, but "
            f"prompt_embeddings has {width}. The adapter may belong to another base."
        )
    saved, weights = saved_names(model, fields.get("modules_to_save") or (), groups)
    for path, parts in groups.items():
        for part, each in parts.items():
            if path != PROMPT and f"base_model.model.{path}.{part}" not in weights:
                raise unexpected(each, "which no virtual token explains, and PEFT would ignore")
    # PEFT wraps the model once less than for layers inside it
    heads = {name.replace("base_model.model.", "base_model.", 1): weights[name] for name in weights}
    names = {PROMPT: found.tensor.name, **heads}
    strategy = PrefixSpec(virtual_tokens=tokens) if is_prefix else PromptSpec(virtual_tokens=tokens)
    return Expressed(
        strategy=strategy,
        kept=names,
        peft_fields={**fields, "modules_to_save": list(saved) or None},
        peft_names=names,
        first_rows=None if is_prefix else tokens,
    )
