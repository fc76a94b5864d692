"""The table of objectives covers every method and every format of data."""

from itertools import product
from typing import get_args

import pytest

from core.catalog.objectives import OBJECTIVES, formats_of, methods_of, objective_of
from core.spec.dataset import DatasetFormat
from core.spec.objective import MethodName


@pytest.mark.parametrize("format_", get_args(DatasetFormat))
def test_some_method_learns_from_every_format(format_: DatasetFormat) -> None:
    assert methods_of(format_)


@pytest.mark.parametrize("method", get_args(MethodName))
def test_every_method_learns_from_some_format(method: MethodName) -> None:
    assert formats_of(method)


def test_a_method_and_a_format_name_one_objective_at_most() -> None:
    pairs = [(each.method, format_) for each in OBJECTIVES.values() for format_ in each.formats]
    assert len(set(pairs)) == len(pairs)
    for method, format_ in product(get_args(MethodName), get_args(DatasetFormat)):
        name = objective_of(method, format_)
        assert (name is not None) == ((method, format_) in pairs)
