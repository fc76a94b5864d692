"""The least recently used value goes, and never one that is in use."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.engine.policy.residency import Residency


@given(st.lists(st.tuples(st.integers(0, 5), st.sets(st.integers(0, 5), max_size=2))))
def test_residency_behaves_like_a_list_in_order_of_use(steps: list[tuple[int, set[int]]]):
    unloaded: list[int] = []
    residency: Residency[int, str] = Residency(3, load=str, unloaded=unloaded.append)
    expected: list[int] = []
    for key, in_use in steps:
        assert residency.acquire(key, in_use) == str(key)
        if key in expected:
            expected.remove(key)
        elif len(expected) == 3:
            oldest = next(each for each in expected if each not in in_use)
            expected.remove(oldest)
            assert unloaded.pop() == oldest
        expected.append(key)
        assert residency.keys() == expected
        assert residency.values() == [str(each) for each in expected]
        assert unloaded == []


def test_a_value_that_cannot_be_loaded_leaves_nothing_behind():
    def load(key: str) -> str:
        raise OSError(key)

    residency: Residency[str, str] = Residency(1, load)
    with pytest.raises(OSError, match="broken"):
        residency.acquire("broken", in_use=())
    assert residency.keys() == []


def test_more_values_in_use_than_fit_are_an_error_of_admission():
    residency: Residency[int, str] = Residency(2, str)
    residency.acquire(1, in_use=())
    residency.acquire(2, in_use=(1,))
    with pytest.raises(RuntimeError, match="in use"):
        residency.acquire(3, in_use=(1, 2))
