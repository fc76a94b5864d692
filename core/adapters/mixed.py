"""One model that runs many adapters in one batch, each row through its own.

The rows of a batch stand sorted by adapter. A product with the base's weights is taken once for
all rows; then every adapter changes the rows that are its own.

Source: Sheng et al. 2023, https://arxiv.org/abs/2311.03285 (S-LoRA).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from core.adapters.adapted import AdaptedModel
from core.adapters.delta import Delta, delta_of
from core.adapters.lora import LoraLinear
from core.adapters.lora_groups import lora_rows
from core.adapters.lora_rows import LoraLayer, LoraRows
from core.adapters.lora_slots import LoraSlots, slot_rank
from core.adapters.segments import Segments
from core.catalog.families import family_of
from core.models.frozen import packed_layer


class MixedModel:
    """A base and the deltas of any number of adapters on it, by name.

    The modules of the base stay where they are. Where an adapter changes something, a `Site`
    stands around the base's module and knows the deltas of all adapters for it.
    """

    def __init__(self, model: PreTrainedModel, *, prepack: bool = False) -> None:
        """With `prepack` linear layers run on copies that are laid out for speed, on a CPU."""
        self.model = model
        self._parents = _parents(model)
        self._sites: dict[str, Site] = {}
        self._current = _Current()
        family = family_of(model.config.model_type)
        self._input_of = partial(_input_of, family.same_input)
        self._plans: dict[bool, tuple[Segments, _Plan]] = {}
        """The last one of each way to run: a batch of writing rows stays for many steps."""
        self._adapters: dict[str, _Adapter] = {}
        self._slots: dict[int, LoraSlots] = {}
        """By rank."""
        if prepack:
            for path, module in list(model.named_modules()):
                if type(module) is nn.Linear and (product := packed_layer(module)) is not None:
                    self._site(path).product = product

    def add(self, name: str, adapted: AdaptedModel) -> None:
        """Make an adapter of this model known; it must not be installed.

        Of low-rank updates it keeps copies of the weights, of all others the modules themselves.
        """
        self._plans.clear()  # they hold weights that may be laid out anew
        dtype, layers = self.model.dtype, adapted.replaced
        low_rank = {path: layer for path, layer in layers.items() if type(layer) is LoraLinear}
        slots = None
        if low_rank:
            rank = slot_rank(low_rank)
            slots = self._slots.setdefault(rank, LoraSlots(rank, self._input_of))
            slots.put(name, low_rank, dtype)
        others = {path: layer for path, layer in layers.items() if path not in low_rank}
        self._adapters[name] = _Adapter(tuple(others), slots)
        for path in low_rank:
            self._site(path)
        for path, layer in others.items():
            self._site(path).deltas[name] = delta_of(layer, dtype)

    def discard(self, name: str) -> None:
        """Forget an adapter."""
        self._plans.clear()
        adapter = self._adapters.pop(name)
        if adapter.slots is not None:
            adapter.slots.forget(name)
        for path in adapter.others:
            del self._sites[path].deltas[name]

    @contextmanager
    def bare(self) -> Iterator[PreTrainedModel]:
        """Give the model as it was before any adapter, to put a new one on it."""
        for path, site in self._sites.items():
            parent, attribute = self._parents[path]
            setattr(parent, attribute, site.base)
        try:
            yield self.model
        finally:
            for path, site in self._sites.items():
                parent, attribute = self._parents[path]
                setattr(parent, attribute, site)

    @contextmanager
    def running(self, segments: Segments, *, together: bool = True) -> Iterator[None]:
        """Run the rows of `segments` through their adapters inside the block.

        `together` takes low-rank updates of many adapters at once; without it each adapter is run
        by itself, which is slower and the reference.
        """
        self._current.plan = self._plan(segments, together)
        try:
            yield
        except BaseException:
            self._plans.clear()  # they may hold what layers have read
            raise
        finally:
            self._current.plan = None

    def _plan(self, segments: Segments, together: bool) -> "_Plan":
        known = self._plans.get(together)
        if known is not None and known[0] == segments:
            return known[1]
        low_rank = self._lora_rows(segments, together)
        plan = _Plan(segments, low_rank, self._adapters, self._sites)
        self._plans[together] = segments, plan
        return plan

    def _lora_rows(self, segments: Segments, together: bool) -> list[LoraRows]:
        by_rank: dict[int, list[int]] = {}
        for index, name in enumerate(segments.adapters):
            slots = None if name is None else self._adapters[name].slots
            if slots is not None:
                by_rank.setdefault(slots.rank, []).append(index)
        return [
            rows
            for rank, indices in by_rank.items()
            for rows in lora_rows(segments, self._slots[rank], indices, together=together)
        ]

    def _site(self, path: str) -> "Site":
        if path not in self._sites:
            parent, attribute = self._parents[path]
            site = Site(path, getattr(parent, attribute), self._current)
            site.train(self.model.training)
            setattr(parent, attribute, site)
            self._sites[path] = site
        return self._sites[path]


@dataclass(frozen=True)
class _Adapter:
    """Where an adapter stands."""

    others: tuple[str, ...]
    """Paths of the modules that it changes by more than a low-rank update."""
    slots: LoraSlots | None
    """Those that its low-rank updates stand in."""


@dataclass(frozen=True)
class _Changes:
    """What happens to the output of one module: low-rank updates, then what is no such update."""

    low_rank: Sequence[LoraLayer]
    others: Sequence[tuple[Delta, int, int]]
    """With the rows [start, end) of the batch."""


class _Plan(dict[str, _Changes | None]):
    """What changes each module of a batch, by path; worked out when it is first asked for."""

    def __init__(
        self,
        segments: Segments,
        low_rank: Sequence[LoraRows],
        adapters: Mapping[str, _Adapter],
        sites: Mapping[str, "Site"],
    ) -> None:
        self.rows = segments.starts[-1]
        self._low_rank = low_rank
        self._sites = sites
        self._others = [
            (name, start, end)
            for name, (start, end) in zip(segments.adapters, pairwise(segments.starts), strict=True)
            if name is not None and adapters[name].others
        ]

    def __missing__(self, path: str) -> _Changes | None:
        deltas = self._sites[path].deltas
        low_rank = [layer for rows in self._low_rank if (layer := rows.layer(path)) is not None]
        others = [(deltas[name], start, end) for name, start, end in self._others if name in deltas]
        self[path] = _Changes(low_rank, others) if low_rank or others else None
        return self[path]


@dataclass
class _Current:
    """The plan of the batch that runs, shared by all sites."""

    plan: _Plan | None = None


class Site(nn.Module):
    """A module of the base with the deltas that adapters have for it.

    Its output is a contiguous tensor, or the first of a tuple. The first dimensions of the input
    hold the rows of the batch: (1, rows, …) or (rows, …).
    """

    def __init__(self, path: str, base: nn.Module, current: _Current) -> None:
        super().__init__()
        self.base = base
        self.product: Callable[[Tensor], Tensor] | None = None
        """What computes the output in the place of `base`."""
        self.deltas: dict[str, Delta] = {}
        """Of adapters that change it by more than a low-rank update, by name."""
        self._path = path
        self._current = current

    def __getattr__(self, name: str) -> Any:
        """Be what the base's module is to code that asks for its weight, say."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("base"), name)

    def forward(self, *arguments: Any, **named: Any) -> Any:
        output = (self.product or self.base)(*arguments, **named)
        plan = self._current.plan
        changes = None if plan is None else plan[self._path]
        if plan is None or changes is None:
            return output
        x = arguments[0] if arguments else next(iter(named.values()))
        if isinstance(output, tuple):
            return _changed(x, output[0], plan.rows, changes), *output[1:]
        return _changed(x, output, plan.rows, changes)


def _changed(x: Tensor, output: Tensor, rows: int, changes: _Changes) -> Tensor:
    """Return the output of a module with the changes of the adapters, each to rows of its own."""
    # 1. One row per token, whatever dimensions come before: (T, O), a view of the output.
    y = output.view(rows, -1)
    # 2. Add the low-rank updates in place. `low` is x A for all layers that read this x: the first
    #    of them computes it, the others take their part.
    for shared, column, add in changes.low_rank:
        add(shared.low(x, column), y)
    if not changes.others:
        return output
    # 3. All other changes replace rows [start, end). A module that returns its input must not have
    #    it overwritten, since others read it too.
    if y.data_ptr() == x.data_ptr():
        y = y.clone()
    x = x.reshape(rows, -1) if x.is_floating_point() else x.reshape(rows)  # (T, I), or T token ids
    for delta, start, end in changes.others:
        own = y[start:end]
        adapted = delta(x[start:end], own)
        if adapted is not own:
            own.copy_(adapted)
    return y.view(output.shape)


def _input_of(same_input: Sequence[Sequence[str]], path: str) -> str:
    """Name what the layer at a path reads: the first layer of those that read the same."""
    parent, _, name = path.rpartition(".")
    first = next((names[0] for names in same_input if name in names), name)
    return f"{parent}.{first}"


def _parents(model: nn.Module) -> dict[str, tuple[nn.Module, str]]:
    """Return by path where each module hangs: its parent and its name there."""
    modules = dict(model.named_modules(remove_duplicate=False))
    parents = {}
    for path in modules:
        if path:
            parent, _, attribute = path.rpartition(".")
            parents[path] = modules[parent], attribute
    return parents
