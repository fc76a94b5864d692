"""An adapter of PEFT as a strategy of ours: which of its tensors becomes which weight."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import ValidationError
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from core.adapter_files.refusal import RefusedAdapter, shown
from core.adapters.modules_to_save import classifier_head
from core.made_models.names import Named
from core.spec.base import Spec
from core.spec.strategy import StrategySpec

PREFIX = "base_model.model."
"""Of every name of a tensor in PEFT's files, except for virtual tokens."""

Groups = Mapping[str, Mapping[str, Named]]
"""By path of the module, then by part."""

Built = TypeVar("Built", bound=Spec)


@dataclass(frozen=True)
class Fold:
    """How a weight of the base becomes a completely trained one: PEFT's change, applied to it.

    Without tensors, it stays that of the base. One tensor is the new weight, or its `rows`. Two are
    the A and B of an update by `scale` · B A, which is the transpose for an embedding.
    """

    tensors: tuple[str, ...]
    """The names in the file."""
    scale: float = 1.0
    rows: tuple[int, ...] = ()
    is_embedding: bool = False

    def apply(self, weight: Tensor, state: Mapping[str, Tensor]) -> Tensor:
        """Return the new weight in fp32."""
        wide = weight.detach().float()
        if not self.tensors:
            return wide
        if self.rows:
            changed = wide.clone()
            changed[list(self.rows)] = state[self.tensors[0]].float()
            return changed
        if len(self.tensors) == 1:
            return state[self.tensors[0]].float()
        a_RI, b_OR = (state[name].float() for name in self.tensors)
        update_OI = b_OR @ a_RI * self.scale
        return wide + (update_OI.t() if self.is_embedding else update_OI)

    @property
    def is_of_base(self) -> bool:
        return not self.tensors


@dataclass(frozen=True)
class Expressed:
    """What an import makes of an adapter, before any weight is read."""

    strategy: StrategySpec
    kept: dict[str, str]
    """By the name of our weight, the name in the file."""
    peft_fields: dict[str, Any]
    """What PEFT is given to load the same adapter: the names of modules come from its tensors."""
    peft_names: dict[str, str]
    """By PEFT's name of a tensor, the name in the file."""
    folds: dict[str, tuple[Fold, ...]] = field(default_factory=dict)
    """By the name of our weight, what changes that of the base, one after another."""
    first_rows: int | None = None
    """Of virtual tokens: the rows that are used; None: all."""
    warnings: tuple[str, ...] = ()


def grouped(named: Iterable[Named]) -> dict[str, dict[str, Named]]:
    groups: dict[str, dict[str, Named]] = defaultdict(dict)
    for each in named:
        groups[each.path][each.part] = each
    return dict(groups)


def saved_names(
    model: PreTrainedModel, config_names: Sequence[str], groups: Groups
) -> tuple[tuple[str, ...], dict[str, str]]:
    """Return the `modules_to_save` that have weights in the file, with these weights.

    The weights are by name, as in PEFT's files. PEFT adds names of heads that a model may not have,
    so a name without weights is left out; `attach` finds what is missing.
    """
    wanted = tuple(dict.fromkeys((*classifier_head(model), *config_names)))
    modules = [path for path, _ in model.named_modules(remove_duplicate=False) if path]
    kept: dict[str, str] = {}
    used = []
    for name in wanted:
        # like PEFT, match the end of the path even inside a part of it
        roots = tuple(f"{path}." for path in modules if path.endswith(name))
        own = {
            f"{PREFIX}{path}.{part}": each.tensor.name
            for path, parts in groups.items()
            for part, each in parts.items()
            if f"{path}.".startswith(roots)
            and not part.startswith(("lora_", "ia3_", "base_layer", "token_adapter"))
        }
        kept |= own
        used += [name] if own else []
    return tuple(used), kept


def require_shape(each: Named, expected: Sequence[int], hint: str = "") -> None:
    """Raise RefusedAdapter unless a tensor has the shape that this base needs."""
    if each.shape != tuple(expected):
        raise RefusedAdapter(
            f"{shown(each.tensor.name)} has the shape {list(each.shape)}, but this base needs "
            f"{list(expected)}.{hint} The adapter may belong to another base."
        )


def unexpected(each: Named, why: str) -> RefusedAdapter:
    return RefusedAdapter(f"The adapter has {shown(each.tensor.name)}, {why}.")


def built(kind: type[Built], **fields: Any) -> Built:
    """Return the strategy; RefusedAdapter for values outside of its limits."""
    try:
        return kind(**fields)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise RefusedAdapter(f"The adapter cannot be served: {place}: {first['msg']}.") from None


def is_vocabulary(model: PreTrainedModel, module: nn.Module) -> bool:
    return module is model.get_output_embeddings() or module is model.get_input_embeddings()


def matrix_of(module: nn.Module) -> Tensor:
    """Return the matrix of a linear layer or an embedding."""
    weight = module.weight
    assert isinstance(weight, Tensor)
    return weight


def layer_shape(layer: nn.Module) -> tuple[int, int]:
    """Return the outputs and inputs of a linear layer, however it stores its weight."""
    rows, columns = matrix_of(layer).shape
    return (columns, rows) if isinstance(layer, Conv1D) else (rows, columns)
