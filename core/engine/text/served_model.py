"""The requested model and its length limits."""

import math
from dataclasses import dataclass

from core.artifacts.manifest import Manifest
from core.batching.template import TemplateContext
from core.catalog.strategies import BOTH_SIDES, Side, virtual_tokens
from core.engine.policy.request import ModelKey
from core.engine.text.vocabulary import Vocabulary
from core.spec.generation import ChatPrompt
from core.spec.template import merged_variables

OPENING_TOKENS = 2
"""The maximum number of tokens that start the decoder of an encoder-decoder."""


@dataclass(frozen=True)
class ServedModel:
    """The requested model: a base, or a bundle with its manifest."""

    base_id: str
    key: ModelKey
    vocabulary: Vocabulary
    manifest: Manifest | None
    cache_tokens: int | None = None
    """Positions of the engine's cache, the limit for one text; None without a limit."""

    @property
    def longest_prompt(self) -> int:
        """The maximum tokens of a prompt or text; in a decoder the answer counts too."""
        before_prompt: tuple[Side, ...] = ("source",) if self.key.task == "seq2seq" else BOTH_SIDES
        longest = min(self.vocabulary.context_length, self.cache_tokens or math.inf)
        return int(longest) - self._virtual_tokens(before_prompt)

    @property
    def positions_before_prompt(self) -> int:
        """The number of cache positions of the adapter's virtual tokens."""
        return 0 if self.key.task == "seq2seq" else self._virtual_tokens(BOTH_SIDES)

    @property
    def longest_target(self) -> int:
        """The maximum number of tokens that an encoder-decoder may generate."""
        taken = OPENING_TOKENS + self._virtual_tokens(("target",))
        return self.vocabulary.context_length - taken

    def template_context(self, prompt: ChatPrompt) -> TemplateContext:
        """Return the template's context: that of training, overridden by the request."""
        if self.manifest is None:
            return TemplateContext(prompt.template_kwargs)
        trained = self.manifest.chat_template_kwargs
        variables = merged_variables(trained, prompt.template_kwargs)
        return TemplateContext(variables, self.manifest.template_time)

    def _virtual_tokens(self, sides: tuple[Side, ...]) -> int:
        return 0 if self.manifest is None else virtual_tokens(self.manifest.strategy, sides)
