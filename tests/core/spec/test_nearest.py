"""Hints about misspelled names."""

from typing import Annotated, Literal

import pytest
from pydantic import AliasChoices, BaseModel, Field

from api.jobs.schemas import CreateJob
from core.spec.fields import fields_at
from core.spec.nearest import did_you_mean


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("stratgy", " Did you mean 'strategy'?"),
        ("Strategy", " Did you mean 'strategy'?"),
        ("weather", ""),
        ("s" * 1_000_000, ""),
    ],
)
def test_only_a_similar_name_is_suggested(name: str, hint: str) -> None:
    assert did_you_mean(name, ["model", "strategy", "training"]) == hint


class Cat(BaseModel):
    type: Literal["cat"]
    lives: int


class Dog(BaseModel):
    type: Literal["dog"]
    tricks: Annotated[list[str], Field(alias="known_tricks")]


class House(BaseModel):
    pets: list[Annotated[Cat | Dog, Field(discriminator="type")]] = []
    rooms: int | None = Field(None, validation_alias=AliasChoices("rooms", "room_count"))


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ([], ["pets", "rooms", "room_count"]),
        (["pets", 3, "cat"], ["type", "lives"]),
        (["pets", 3, "dog"], ["type", "known_tricks"]),
        (["pets", 3], ["type", "lives", "known_tricks"]),
    ],
)
def test_fields_are_those_of_the_object_at_the_path(
    path: list[str | int], names: list[str]
) -> None:
    assert fields_at(House, path) == names


def test_a_strategy_knows_its_own_fields_only() -> None:
    assert "double_quantization" in fields_at(CreateJob, ["strategy", "qlora"])
    assert "double_quantization" not in fields_at(CreateJob, ["strategy", "lora"])
    assert "lora_alpha" in fields_at(CreateJob, ["strategy", "lora"])
