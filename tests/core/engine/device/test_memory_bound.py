"""Models within a memory: what runs stays, what is idle makes room, and nobody waits for ever."""

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from core.engine.device.runner import BaseLoader, Runner
from core.engine.engine import Engine
from core.engine.metrics import EngineMetrics
from core.engine.policy.blocks import BlockPool
from core.engine.policy.request import BaseKey, ModelKey, Request
from core.engine.policy.residency import Residency
from core.engine.policy.scheduler import Scheduler
from core.engine.policy.step import Limits
from core.spec.base_model import BaseModelSpec
from core.spec.generation import GenerationRequest, SamplingSpec, TokenPrompt
from core.spec.strategy import FullSpec
from tests.core.engine.asking import DecodedById, next_logprobs, said_of
from tests.core.engine.bundles import write_bundle
from tests.core.engine.own_weights import plain
from tests.core.tiny import save_base

MEMORY = 10
NAMES = "abcdefg"


def key_of(name: str) -> BaseKey:
    return BaseKey(BaseModelSpec(id=name, source=f"/{name}"))


class MemoryMachine(RuleBasedStateMachine):
    """Scheduler and residency as the engine joins them, over bases of drawn sizes."""

    @initialize(
        sizes=st.lists(st.integers(1, MEMORY), min_size=len(NAMES), max_size=len(NAMES)),
        max_bases=st.integers(1, 4),
    )
    def begin(self, sizes: list[int], max_bases: int) -> None:
        bytes_of = dict(zip(map(key_of, NAMES), sizes, strict=True)).__getitem__
        self.bytes_of = bytes_of
        self.max_bases = max_bases
        limits = Limits(
            max_sequences=6,
            max_waiting=12,
            max_step_tokens=8,
            max_bases=max_bases,
            max_adapters=1,
            max_base_bytes=MEMORY,
        )
        self.scheduler = Scheduler(limits, lambda base: BlockPool(8, 2), bytes_of)
        self.unloaded: list[BaseKey] = []
        self.residency: Residency[BaseKey, str] = Residency(
            max_bases,
            lambda key: key.spec.id,
            self.unloaded.append,
            max_bytes=MEMORY,
            bytes_of=bytes_of,
        )
        self.pending: list = []

    @precondition(lambda self: self.scheduler.can_add())
    @rule(name=st.sampled_from(NAMES), tokens=st.integers(1, 4))
    def add(self, name: str, tokens: int) -> None:
        model = ModelKey(key_of(name).spec)
        request = Request("r", model, (1, 2), SamplingSpec(seed=0), tokens, frozenset())
        self.pending += self.scheduler.add(request)

    @rule()
    def step(self) -> None:
        step = self.scheduler.schedule()
        assert (step is None) == (not self.pending), "work is left and nothing runs"
        if step is None:
            return
        in_use = {lane.base for lane in self.scheduler.lanes if lane.running}
        self.residency.acquire(step.base, in_use)  # raises when admission let too many in
        assert not set(self.unloaded) & in_use, "what runs was unloaded"
        self.scheduler.advance(step)
        for chunk in step.chunks:
            if chunk.is_last:
                chunk.sequence.write(7)
                if len(chunk.sequence.tokens) == chunk.sequence.request.max_tokens:
                    self.scheduler.remove(chunk.sequence)
                    self.pending.remove(chunk.sequence)
        for base in self.unloaded:
            self.scheduler.drop(base)
        self.unloaded.clear()

    @precondition(lambda self: self.pending)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        sequence = data.draw(st.sampled_from(self.pending))
        self.scheduler.remove(sequence)
        self.pending.remove(sequence)

    @rule()
    def everything_ends(self) -> None:
        """However the sizes lie, the oldest waiting base is served, so a queue runs dry."""
        bound = 8 * (1 + sum(sequence.request.max_tokens for sequence in self.pending))
        for _ in range(bound):
            if not self.pending:
                return
            self.step()
        assert not self.pending, "somebody waits for ever"

    @invariant()
    def memory_holds(self) -> None:
        loaded = self.residency.keys()
        assert sum(map(self.bytes_of, loaded)) == self.residency.bytes <= MEMORY
        assert len(loaded) <= self.max_bases
        running = {lane.base for lane in self.scheduler.lanes if lane.running}
        assert sum(map(self.bytes_of, running)) <= MEMORY


TestMemory = MemoryMachine.TestCase
TestMemory.settings = settings(max_examples=200, stateful_step_count=50, deadline=None)


def test_a_large_base_is_not_overtaken_for_ever_by_small_ones():
    sizes = {"large": 10, "small": 2, "other": 2}
    limits = Limits(6, 99, 8, max_bases=4, max_adapters=1, max_base_bytes=MEMORY)
    scheduler = Scheduler(limits, lambda base: BlockPool(32, 2), lambda key: sizes[key.spec.id])

    def add(name: str) -> None:
        model = ModelKey(key_of(name).spec)
        scheduler.add(Request("r", model, (1,), SamplingSpec(seed=0), 4, frozenset()))

    served = []
    add("small")
    for number in range(30):  # somebody new every step, so that a small base always runs
        add("small" if number % 2 else "other")
        if number == 1:
            add("large")
        step = scheduler.schedule()
        assert step is not None
        served.append(step.base.spec.id)
        scheduler.advance(step)
        for chunk in step.chunks:
            chunk.sequence.write(7)
            if len(chunk.sequence.tokens) == chunk.sequence.request.max_tokens:
                scheduler.remove(chunk.sequence)
    assert "large" in served[:15], served


def test_three_models_trained_whole_take_turns_in_a_memory_of_two(
    tmp_path, store, files, reader, make_engine
):
    base = save_base(tmp_path / "base", eos_token_id=None)
    bundles = [
        write_bundle(tmp_path / f"bundle-{seed}", store, base, FullSpec(), seed=seed)
        for seed in range(3)
    ]
    prompt, sampling = (
        (40, 41, 42),
        SamplingSpec(max_tokens=5, temperature=0, seed=0, top_logprobs=0),
    )
    asked = [
        reader.read(
            GenerationRequest(
                id="r",
                base=base,
                adapter=bundle.ref,
                prompt=TokenPrompt(tokens=prompt),
                sampling=sampling,
            )
        )
        for bundle in bundles
    ]
    options = {"cache_bytes": 2**16, "max_adapters": 1}
    probe = BaseLoader(torch.device("cpu"), files.folder, **options)
    memory = 2 * probe.bytes_of(asked[0][0].model.base_key)
    loader = BaseLoader(torch.device("cpu"), files.folder, max_base_bytes=memory, **options)
    limits = Limits(8, 64, 32, max_bases=16, max_adapters=1, max_base_bytes=memory)
    scheduler = Scheduler(limits, loader.pool, loader.bytes_of)
    runner = Runner(loader.load, limits.max_bases, memory, loader.bytes_of)
    engine = Engine(scheduler, runner, EngineMetrics(scheduler, runner, loader.adapters))
    answers: list[tuple[int, list]] = []
    for _ in range(2):  # all three at once, twice: each is loaded again in its turn
        for number, (request, token_bytes) in enumerate(asked):
            answers.append((number, []))
            engine.submit(request, DecodedById(request, token_bytes), answers[-1][1].append)
        while engine.step():
            assert len(runner.resident_bases()) <= 2
            assert runner.resident_bytes() <= memory
    for number, items in answers:
        said = said_of(items)
        model = plain(BaseModelSpec(id="whole", source=str(bundles[number].folder)))
        best = next_logprobs(model, prompt, said.tokens).max(dim=-1)
        assert said.tokens == tuple(best.indices.tolist())
        assert said.logprobs == pytest.approx(best.values.tolist(), abs=1e-4)
