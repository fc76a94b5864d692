"""Which engine is asked first."""

from collections.abc import Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from core.records.engine_order import in_order
from core.records.engines import LivingEngine
from core.spec.base_model import BaseModelSpec
from core.spec.bundle import BundleRef
from core.spec.engine_protocol import EngineReport

BASES = [BaseModelSpec(id=name, source=f"/models/{name}") for name in "xyz"]
BASE = BASES[0]
ADAPTERS = [BundleRef(key=f"bundles/{i}", sha256=str(i) * 64) for i in range(3)]
ADAPTER = ADAPTERS[0]

RESIDENT: dict[str, Any] = {"bases": (BASE,), "bundles": (ADAPTER.sha256,)}


def engine(name: str, **report: Any) -> LivingEngine:
    values: dict[str, Any] = {"max_running": 8} | report
    return LivingEngine(EngineReport(url=f"http://{name}:8001", **values), seen_at=0)


def names(engines: Sequence[LivingEngine]) -> list[str]:
    return [engine.url.removeprefix("http://").removesuffix(":8001") for engine in engines]


def order(*engines: LivingEngine, **in_flight: int) -> list[str]:
    counts = {f"http://{name}:8001": count for name, count in in_flight.items()}
    return names(in_order(engines, BASE, ADAPTER, counts))


def test_where_the_adapter_is_comes_before_where_its_base_is_before_an_empty_one() -> None:
    has_adapter = engine("adapter", **RESIDENT, running=6)
    has_base = engine("base", bases=(BASE,), running=3)
    assert order(engine("empty"), has_base, has_adapter) == ["adapter", "base", "empty"]


def test_a_model_that_was_trained_whole_is_at_home_where_its_bundle_is() -> None:
    whole = BaseModelSpec(id="x/000000000000", source="/cache/0")
    home = engine("home", bases=(whole,), bundles=(ADAPTER.sha256,))
    assert order(engine("base", bases=(BASE,)), home) == ["home", "base"]


def test_a_full_batch_is_worse_than_a_missing_adapter_or_a_missing_base() -> None:
    full = engine("full", **RESIDENT, running=8)
    assert order(full, engine("base", bases=(BASE,))) == ["base", "full"]
    assert order(full, engine("empty")) == ["empty", "full"]


def test_the_base_of_others_is_driven_out_last_of_all() -> None:
    taken = engine("taken", bases=(BASES[1],))
    full = engine("full", **RESIDENT, running=8, waiting=200)
    assert order(taken, full) == ["full", "taken"]
    assert order(engine("roomy", bases=(BASES[1],), max_bases=2), taken) == ["roomy", "taken"]


def test_among_equals_the_less_loaded_one_is_asked_whatever_its_size() -> None:
    large = engine("large", **RESIDENT, running=6, max_running=32)
    assert order(engine("small", **RESIDENT, running=2), large) == ["large", "small"]


def test_what_was_sent_since_the_report_counts() -> None:
    engines = engine("a", **RESIDENT), engine("b", **RESIDENT, running=2)
    assert order(*engines, a=1) == ["a", "b"]
    assert order(*engines, a=3) == ["b", "a"]
    assert order(*engines, a=8, b=1) == ["b", "a"]


reports = st.fixed_dictionaries(
    {
        "bases": st.lists(st.sampled_from(BASES), unique=True, max_size=2).map(tuple),
        "bundles": st.lists(st.sampled_from([a.sha256 for a in ADAPTERS]), max_size=2).map(tuple),
        "max_bases": st.integers(1, 2),
        "running": st.integers(0, 8),
        "waiting": st.integers(0, 3),
    }
)
fleets = st.lists(reports, min_size=1, max_size=6).map(
    lambda all_: [engine(f"engine{i}", **report) for i, report in enumerate(all_)]
)
wishes = st.tuples(st.sampled_from(BASES), st.none() | st.sampled_from(ADAPTERS))


@given(fleets, wishes, st.randoms(use_true_random=False))
def test_every_engine_is_named_once_and_their_order_decides_nothing(
    fleet: list[LivingEngine], wish: tuple[BaseModelSpec, BundleRef | None], random: Any
) -> None:
    ordered = in_order(fleet, *wish, {})
    assert sorted(names(ordered)) == sorted(names(fleet))
    random.shuffle(fleet)
    assert in_order(fleet, *wish, {}) == ordered


@given(fleets, wishes, st.data())
def test_an_engine_that_goes_moves_no_request_but_its_own(
    fleet: list[LivingEngine], wish: tuple[BaseModelSpec, BundleRef | None], data: Any
) -> None:
    ordered = in_order(fleet, *wish, {})
    gone = data.draw(st.sampled_from(fleet))
    left = [engine for engine in fleet if engine != gone]
    assert in_order(left, *wish, {}) == [engine for engine in ordered if engine != gone]


@given(fleets, wishes, st.data())
def test_an_engine_gains_by_holding_the_adapter_and_loses_by_more_to_do(
    fleet: list[LivingEngine], wish: tuple[BaseModelSpec, BundleRef | None], data: Any
) -> None:
    base, adapter = wish
    index = data.draw(st.integers(0, len(fleet) - 1))

    def rank_with(**change: Any) -> int:
        report = fleet[index].report.model_copy(update=change)
        changed = [*fleet[:index], LivingEngine(report, 0), *fleet[index + 1 :]]
        return names(in_order(changed, base, adapter, {})).index(f"engine{index}")

    now = rank_with()
    held = () if adapter is None else (adapter.sha256,)
    assert rank_with(bases=(base,), bundles=held) <= now
    assert rank_with(waiting=fleet[index].report.waiting + 9) >= now


def test_equal_engines_share_the_adapters_evenly() -> None:
    fleet = [engine(name, bases=(BASE,)) for name in ("a", "b", "c", "d")]
    first = [
        names(in_order(fleet, BASE, BundleRef(key="k", sha256=f"{i:064x}"), {}))[0]
        for i in range(400)
    ]
    assert all(60 <= first.count(name) <= 140 for name in ("a", "b", "c", "d"))
