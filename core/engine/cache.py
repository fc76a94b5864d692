"""A key/value cache whose first columns belong to a prefix that was trained."""

# B rows, T columns of the first block, P tokens of the prefix, K key/value heads, D size of a head

from typing import Any

from torch import Tensor
from transformers import DynamicCache, PreTrainedConfig

from core.adapters.virtual import PrefixStates


class PrefixedCache(DynamicCache):
    """Puts a prefix in the place of the keys and values of some tokens of the first block.

    The caller lets P tokens stand before each prompt, whatever they are, from `first_columns` on
    (one per row). All else (padding, positions, windows) then is as if the prefix were text. PEFT
    puts the prefix before the first block, where the padding of a batch would come between it and
    a prompt.
    """

    def __init__(
        self,
        prefix: PrefixStates,
        first_columns: list[int],
        config: PreTrainedConfig | None = None,
    ) -> None:
        super().__init__(config=config)
        self._prefix = prefix
        self._first_columns = first_columns

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        if self.get_seq_length(layer_idx) == 0:
            key_KPD, value_KPD = self._prefix.layer(layer_idx)
            key_states = self._in_place(key_states, key_KPD)
            value_states = self._in_place(value_states, value_KPD)
        updated: tuple[Tensor, Tensor] = super().update(
            key_states, value_states, layer_idx, *args, **kwargs
        )
        return updated

    def _in_place(self, states_BKTD: Tensor, prefix_KPD: Tensor) -> Tensor:
        states_BKTD = states_BKTD.clone()
        for row, first in enumerate(self._first_columns):
            states_BKTD[row, :, first : first + prefix_KPD.shape[1]] = prefix_KPD
        return states_BKTD
