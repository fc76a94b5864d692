"""The weights of a model by name, computed from its config without torch.

Names and shapes are those of transformers; `tests/core/planning` compares them for every family.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import prod

Shape = tuple[int, ...]


@dataclass(frozen=True)
class LinearShape:
    """A linear layer; `transposed`: its weight is stored as (inputs, outputs), as in GPT-2."""

    inputs: int
    outputs: int
    transposed: bool = False


@dataclass(frozen=True)
class AttentionShape:
    """Layers, key/value heads and head size, of the decoder if there are two stacks."""

    layers: int
    heads: int
    key_value_heads: int
    head_size: int


@dataclass
class Outline:
    """A model without weights."""

    width: int
    """The hidden size between blocks."""
    attention: AttentionShape
    weights: dict[str, Shape] = field(default_factory=dict)
    """The shape of every weight by its path, in the order of the model."""
    tied: dict[str, str] = field(default_factory=dict)
    """Weights that share the memory of an earlier weight, by path."""
    linear: dict[str, LinearShape] = field(default_factory=dict)
    """The linear layers by path, without the output head."""
    blocks: dict[str, int] = field(default_factory=dict)
    """The number of blocks by the path of their stack."""

    def add_linear(
        self, path: str, inputs: int, outputs: int, *, bias: bool, transposed: bool = False
    ) -> None:
        self.linear[path] = LinearShape(inputs, outputs, transposed)
        self.weights[f"{path}.weight"] = (inputs, outputs) if transposed else (outputs, inputs)
        if bias:
            self.weights[f"{path}.bias"] = (outputs,)

    def add_matrix(self, path: str, rows: int, columns: int, *, like: str | None = None) -> None:
        """Add an embedding or an output head; `like`: tied to this weight."""
        self.weights[f"{path}.weight"] = (rows, columns)
        if like is not None:
            self.tied[f"{path}.weight"] = like

    def add_norm(self, path: str, width: int, *, bias: bool = False) -> None:
        self.weights[f"{path}.weight"] = (width,)
        if bias:
            self.weights[f"{path}.bias"] = (width,)

    @property
    def parameters(self) -> int:
        """The number of weights; a tied one counts once."""
        return sum(prod(self.weights[name]) for name in self.weights if name not in self.tied)

    def modules(self) -> list[str]:
        """Return the paths of all modules that have weights, outer ones first."""
        paths: dict[str, None] = {}
        for name in self.weights:
            parts = name.split(".")
            for end in range(1, len(parts)):
                paths[".".join(parts[:end])] = None
        return list(paths)

    def weights_in(self, module: str) -> Iterator[str]:
        """Yield the names of the weights of a module, each shared one once."""
        seen: set[str] = set()
        for name in self.weights:
            if name.startswith(f"{module}."):
                root = self.tied.get(name, name)
                if root not in seen:
                    seen.add(root)
                    yield name

    def size_of(self, name: str) -> int:
        return prod(self.weights[name])
