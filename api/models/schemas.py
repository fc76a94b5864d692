"""OpenAI's model object, with our `parity` beside its fields."""

from typing import Literal

from pydantic import BaseModel, Field

from core.spec.parity import Parity


class ModelObject(BaseModel):
    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str
    parity: Parity | None = Field(
        None,
        description="of a tuned model: whether it was found to be served as it was trained; null "
        "for bases and checkpoints, and for models that are older than this check",
    )


class ModelList(BaseModel):
    object: Literal["list"] = "list"
    data: list[ModelObject]


class DeletedModel(BaseModel):
    id: str
    object: Literal["model"] = "model"
    deleted: Literal[True] = True
