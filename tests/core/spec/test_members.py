"""Tables that have an entry for each member of a union."""

from typing import Annotated, Literal

import pytest
from pydantic import Field

from core.spec.base import Spec
from core.spec.members import for_each, types_of

Size = Literal["small", "large"]


class SquareSpec(Spec):
    type: Literal["square"] = "square"


class CircleSpec(Spec):
    type: Literal["circle"] = "circle"


Shape = Annotated[SquareSpec | CircleSpec, Field(discriminator="type")]


def test_members_are_found_under_their_annotations() -> None:
    assert types_of(Shape) == ("square", "circle")
    assert types_of(Size) == ("small", "large")


def test_a_table_with_a_gap_names_what_is_missing() -> None:
    assert for_each(Size, {"large": 2, "small": 1}) == {"small": 1, "large": 2}
    with pytest.raises(TypeError, match="no entry for large"):
        for_each(Size, {"small": 1})
    with pytest.raises(TypeError, match="an entry for huge"):
        for_each(Size, {"small": 1, "large": 2, "huge": 3})
