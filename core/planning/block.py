"""What one block of a model keeps of a token for the backward pass."""

from dataclasses import dataclass

from core.planning.outline import Outline
from core.planning.run import DeviceKind, PlannedRun, itemsize
from core.spec.precision import NumberFormat
from core.spec.strategy import BottleneckSpec, Ia3Spec, LowRankSpec, PrefixSpec, PromptSpec

LONGEST_STORED_SEQUENCE = 512
"""Up to this length, attention on a CPU keeps its probabilities (`core/models/attention.py`)."""

WIDE = 4
"""Bytes of an fp32 value."""


@dataclass(frozen=True)
class Pass:
    """One forward pass: `tokens`, of which each attends to about `attended`.

    `padding`: by how much sequences are lengthened inside attention.
    """

    tokens: float
    attended: float
    precision: NumberFormat
    device: DeviceKind
    padding: float = 1.0

    @property
    def itemsize(self) -> int:
        return itemsize(self.precision)


class Block:
    """The bytes per token that a block keeps."""

    def __init__(self, run: PlannedRun, one: Pass) -> None:
        self._run = run
        self._one = one
        self._size = one.itemsize
        self._outline: Outline = run.outline
        shape = self._outline.attention
        self._queries = shape.heads * shape.head_size
        self._keys = shape.key_value_heads * shape.head_size

    def bytes_per_token(self, stack: str) -> float:
        prefix = f"{stack}.{1 if self._run.family.model_type == 'modernbert' else 0}."
        layers = [path for path in self._outline.linear if path.startswith(prefix)]
        inner = self._inner(layers)
        values = self._linear_inputs(layers) + self._feed_forward(layers, inner)
        crosses = any("EncDecAttention" in p or "encoder_attn" in p for p in layers)
        attention = self._attention() * (2 if crosses else 1)
        added = self._added(layers)
        kept = (values + attention + added + self._masks()) * self._size
        return self._norms(crosses) + kept + self._noise(layers, crosses)

    def bytes_without_gradient(self) -> float:
        """What the first norm of every stack would keep if gradients reached its input."""
        has_gradient = self._run.trained.everything or isinstance(
            self._run.spec.strategy, PromptSpec | PrefixSpec | BottleneckSpec
        )
        kind, stacks = self._run.family.model_type, len(self._outline.blocks)
        if has_gradient or kind in ("bert", "bart", "modernbert"):
            return 0.0
        return stacks * self._outline.width * (self._size if kind == "gpt2" else WIDE)

    def bytes_outside(self) -> float:
        """The cosines and sines of rotations, and the final norm of a first stack."""
        kind, stacks = self._run.family.model_type, len(self._outline.blocks)
        if kind in ("bert", "bart"):
            is_trained = self._run.trained.everything
            return self._size * self._outline.width if is_trained else self._after_adapter()
        rotation = 0 if kind in ("gpt2", "t5") else 2 * self._outline.attention.head_size
        others = (stacks - 1) * self.bytes_of_final_norm()
        return others + rotation * self._size + self._after_adapter()

    def bytes_of_final_norm(self) -> float:
        """What the norm after the last block keeps, which the backward pass frees first."""
        kind, width = self._run.family.model_type, self._outline.width
        if kind in ("bert", "bart"):
            return 0.0
        if kind in ("gpt2", "modernbert"):
            return float(self._size * width)
        return (WIDE + (self._scaled_norm() if self._run.trained.everything else 0)) * width

    def _after_adapter(self) -> float:
        """What the first block keeps of a bottleneck at its end, and of a norm behind that."""
        strategy, width = self._run.spec.strategy, self._outline.width
        if not isinstance(strategy, BottleneckSpec) or strategy.placement != "pfeiffer":
            return 0.0
        has_norm = self._run.family.model_type in ("bert", "bart")
        inner = width // strategy.reduction_factor
        return ((2 if has_norm else 1) * width + 2 * inner) * self._size

    def _scaled_norm(self) -> int:
        """Bytes of the normalized value that the gradient of a norm's weight needs."""
        return WIDE if self._run.family.model_type.startswith("gemma") else self._size

    def _linear_inputs(self, layers: list[str]) -> float:
        """The inputs of linear layers that are trained or adapted; a shared one counts once."""
        trained, names = self._run.trained, self._run.family.layers
        seen: set[tuple[str, str]] = set()
        total = 0.0
        for path in layers:
            is_kept = trained.everything or path in trained.adapted
            if isinstance(self._run.spec.strategy, Ia3Spec):
                is_kept = False  # counted among the added ones
            if not is_kept:
                continue
            module, _, name = path.rpartition(".")
            group = "in" if _is_any(path, names.query + names.key + names.value) else name
            if _is_any(path, (*names.gate, *names.up)):
                group = "in"
            if (module, group) not in seen:
                seen.add((module, group))
                total += self._outline.linear[path].inputs
        return total

    def _inner(self, layers: list[str]) -> int:
        downs = [path for path in layers if _is_any(path, self._run.family.layers.down)]
        return max(self._outline.linear[path].inputs for path in downs)

    def _feed_forward(self, layers: list[str], inner: int) -> float:
        if self._run.family.model_type == "t5" and not is_gated(self._run):
            # relu keeps its output, which is the input of the next layer
            is_kept = self._keeps_inputs(layers, self._run.family.layers.down)
            return 0 if is_kept else inner
        return ((3 if is_gated(self._run) else 1) + (3 if self._composes_gelu() else 0)) * inner

    def _keeps_inputs(self, layers: list[str], names: tuple[str, ...]) -> bool:
        trained = self._run.trained
        own = [path for path in layers if _is_any(path, names)]
        return trained.everything or any(path in trained.adapted for path in own)

    def _composes_gelu(self) -> bool:
        """Whether the activation is computed by several operations, which keep their inputs."""
        kind, fields = self._run.family.model_type, self._run.fields
        if kind == "gpt2":
            return fields.text("activation_function") == "gelu_new"
        return kind == "t5" and fields.text("feed_forward_proj") == "gated-gelu"

    def _attention(self) -> float:
        heads, attended = self._outline.attention.heads, self._one.attended
        if isinstance(self._run.spec.strategy, PrefixSpec):
            attended += self._run.spec.strategy.virtual_tokens
        kept, kind = 3.0 * self._queries, self._run.family.model_type
        is_short = attended <= LONGEST_STORED_SEQUENCE
        scores = heads * attended
        if kind == "gemma2":
            return kept + (2 * scores if is_short else self._queries)
        is_cuda = self._one.device == "cuda"
        if kind == "t5" and self._run.trained.everything and not is_cuda:
            # a trained position bias rules out the fused kernel
            return kept + scores * (1 if self._size == WIDE else 3)
        dropout = self._attention_dropout()
        has_fused_kernel = kind in ("bart", "t5") and not dropout
        if is_cuda or not is_short or has_fused_kernel:
            return kept + self._queries
        return (kept + scores * (3 if dropout else 1)) * self._one.padding

    def _attention_dropout(self) -> float:
        names = {"bert": "attention_probs_dropout_prob", "gpt2": "attn_pdrop", "t5": "dropout_rate"}
        return self._run.fields.share(names.get(self._run.family.model_type, "attention_dropout"))

    def _norms(self, crosses: bool) -> float:
        """Norms in fp32 keep an fp32 copy of their input; torch's own keep the input."""
        kind, width = self._run.family.model_type, self._outline.width
        if kind in ("gpt2", "bert", "bart", "modernbert"):
            return (3 if crosses else 2) * width * self._size
        count = {"gemma2": 4, "gemma3_text": 4}.get(kind, 3 if crosses else 2)
        kept = float(count * width * WIDE)
        if kind == "t5" and self._size < WIDE:
            kept += count * width * self._size  # as well as its copy in fp32
        if kind in ("qwen3", "gemma3_text"):
            kept += (self._queries + self._keys) * WIDE
            if self._run.trained.everything:
                kept += (self._queries + self._keys) * self._size
        if self._run.trained.everything:
            kept += count * width * self._scaled_norm()
        return kept

    def _added(self, layers: list[str]) -> float:
        """Values that the strategy's own layers, and dropout, keep."""
        strategy, adapted = self._run.spec.strategy, self._run.trained.adapted
        own = [adapted[path] for path in layers if path in adapted]
        match strategy:
            case LowRankSpec():
                kept = float(sum(strategy.rank for _ in own))
                if strategy.use_dora:
                    kept += sum(layer.outputs for layer in own)
                if strategy.dropout:
                    # each layer keeps its own dropped input and the noise, not the shared input
                    values = 1 + self._bytes_of_noise() / self._size
                    kept += sum(values * layer.inputs for layer in own)
                    kept -= self._linear_inputs(layers)
                return kept
            case Ia3Spec():
                downs = self._run.family.layers.down
                inputs = strategy.feedforward_modules if strategy.target_modules else downs
                return sum(
                    adapted[path].inputs if path.endswith(tuple(inputs)) else adapted[path].outputs
                    for path in layers
                    if path in adapted
                )
            case BottleneckSpec():
                places = 2 if strategy.placement == "houlsby" else 1
                inner = self._outline.width // strategy.reduction_factor
                return places * (self._outline.width + 2 * inner)
            case _:
                return 0.0

    def _noise(self, layers: list[str], crosses: bool) -> float:
        """Bytes of the noise of dropout on the outputs of attention and feed-forward network."""
        names = {"bert": "hidden_dropout_prob", "gpt2": "resid_pdrop", "bart": "dropout"}
        names["t5"] = "dropout_rate"
        kind = self._run.family.model_type
        if kind not in names or not self._run.fields.share(names[kind]):
            return 0.0
        values = (3.0 if crosses else 2.0) * self._outline.width
        if kind != "t5":
            return values * self._bytes_of_noise()
        # also inside the feed-forward network, which then keeps both its values and the noisy ones
        inner = self._run.fields.size("d_ff")
        is_kept = self._keeps_inputs(layers, self._run.family.layers.down)
        copied = inner * self._size if is_kept else 0
        return (values + inner) * self._bytes_of_noise() + copied

    def _bytes_of_noise(self) -> int:
        """A GPU keeps one byte for each value that dropout sees, a CPU a factor."""
        return 1 if self._one.device == "cuda" else self._size

    def _masks(self) -> float:
        """The position bias of T5, which each of its layers adds to the mask anew."""
        is_composed = self._run.trained.everything and self._one.device == "cpu"
        if self._run.family.model_type != "t5" or is_composed:
            return 0.0
        return self._outline.attention.heads * self._one.attended


def is_gated(run: PlannedRun) -> bool:
    """Return whether the feed-forward networks multiply two projections."""
    kind = run.family.model_type
    if kind == "t5":
        return run.fields.text("feed_forward_proj").startswith("gated-")
    return bool(run.family.layers.gate) or kind in ("phi3", "modernbert")


def _is_any(path: str, names: tuple[str, ...]) -> bool:
    return any(path == name or path.endswith(f".{name}") for name in names)
