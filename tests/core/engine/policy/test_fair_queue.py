from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from core.engine.policy.fair_queue import FairQueue

Item = tuple[str, int]


def queue() -> FairQueue[Item]:
    return FairQueue(lambda item: item[0])


def test_within_a_flow_first_come_is_first_served() -> None:
    waiting = queue()
    for number in range(3):
        waiting.append(("a", number))
    waiting.take(("a", 0))
    assert waiting.candidates() == [("a", 1)]
    waiting.put_back(("a", 0))
    assert waiting.candidates() == [("a", 0)]
    assert len(waiting) == 3


@given(st.lists(st.sampled_from("aaaaaaab"), min_size=60, max_size=60))
def test_flows_that_wait_are_served_alike_however_much_they_ask(order: list[str]) -> None:
    waiting, served = queue(), Counter[str]()
    for number, flow in enumerate([*order, *"b" * 20]):
        waiting.append((flow, number))
    while {flow for flow, _ in waiting} == {"a", "b"}:
        item = waiting.candidates()[0]
        waiting.take(item)
        waiting.charge(item, 10)
        served[item[0]] += 10
        assert abs(served["a"] - served["b"]) <= 10


def test_who_comes_back_has_earned_no_credit() -> None:
    waiting = queue()
    waiting.append(("old", 0))
    waiting.charge(("old", 0), 1000)
    waiting.append(("new", 0))
    assert waiting._served["new"] == 1000, "a new flow starts where the others are"
    waiting.charge(("new", 0), 10)
    assert waiting.candidates()[0] == ("old", 0)


def test_idle_flows_are_forgotten() -> None:
    waiting = queue()
    for number in range(100):
        item = (f"flow {number}", 0)
        waiting.append(item)
        waiting.take(item)
        waiting.charge(item, 5)
    waiting.forget_idle({"flow 7"})
    assert len(waiting._served) == 1
