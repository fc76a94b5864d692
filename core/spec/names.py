"""Fields that have a second name: PEFT's, or the British spelling that came first.

What is written has a field's own name. What is read may have any name of it.
"""

import re

from pydantic import AliasChoices, BaseModel, model_validator
from pydantic_core import PydanticCustomError

TWO_NAMES = "two_names"
"""The type of the error for a field that is given twice, with different values."""

_FIRST_SPELLING = {
    "base_quantization": "base_quantisation",
    "double_quantization": "double_quantisation",
    "optimizer": "optimiser",
    "quantization": "quantisation",
}
_RENAMED_KEY = re.compile(rf'"({"|".join(_FIRST_SPELLING)})":')


class Aliased(BaseModel):
    """A model with fields that list their names as `validation_alias=AliasChoices(own, other)`.

    Two names of one field may be given together when their values are equal.
    """

    @model_validator(mode="before")
    @classmethod
    def _keep_one_name_of_each_field(cls, value: object) -> object:
        if not isinstance(value, dict):
            return value
        kept = dict(value)
        for field in cls.model_fields.values():
            if not isinstance(field.validation_alias, AliasChoices):
                continue
            given = [name for name in field.validation_alias.choices if name in kept]
            for other in given[1:]:
                if kept.pop(other) != kept[given[0]]:
                    raise PydanticCustomError(
                        TWO_NAMES,
                        "'{first}' and '{other}' name the same field and have different values",
                        {"first": given[0], "other": other},
                    )
        return kept


def first_spelling(json: str) -> str:
    """Return the compact JSON of a spec with its fields as they were first spelled.

    Hashes are taken over this text, so that those stored before the fields were renamed hold.
    """
    return _RENAMED_KEY.sub(lambda key: f'"{_FIRST_SPELLING[key[1]]}":', json)
