"""What several layers compute from one input, computed once."""

from collections.abc import Callable

from torch import Tensor


class SharedInput:
    """The products of all layers that read the same tensor x.

    They are computed when the first layer runs, and held until the last one has run.
    """

    def __init__(self, compute: Callable[[Tensor], dict[int, Tensor]]) -> None:
        """`compute` maps x to a product for each layer that will run, by its number."""
        self._compute = compute
        self._x: Tensor | None = None
        self._products: dict[int, Tensor] = {}

    def product(self, x: Tensor, layer: int) -> Tensor:
        """Return the product of one of the layers."""
        if self._x is not x or layer not in self._products:
            self._x, self._products = x, self._compute(x)
        own = self._products.pop(layer)
        if not self._products:
            self.forget()
        return own

    def forget(self) -> None:
        """Drop x and what has been computed from it, after a step that failed."""
        self._x, self._products = None, {}
