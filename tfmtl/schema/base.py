"""What all specifications share: frozen pydantic models that reject unknown keys."""

from __future__ import annotations

import keyword
import re
from typing import Annotated

import pydantic

_NAME = re.compile(r"^[A-Za-z][A-Za-z0-9_]*$")


class Spec(pydantic.BaseModel):
    """A frozen part of an experiment; an unknown key is an error, not a typo kept."""

    model_config = pydantic.ConfigDict(
        frozen=True,
        extra="forbid",
        validate_default=True,
        use_attribute_docstrings=True,
    )


class Misplaced(ValueError):
    """A broken rule of a key below the one that the rule is checked at.

    Args:
        message: What is wrong.
        place: The key, from the one that is checked.
    """

    def __init__(self, message: str, *place: str | int) -> None:
        super().__init__(message)
        self.place = place


def _check_name(value: str) -> str:
    if not _NAME.match(value) or keyword.iskeyword(value) or value.endswith("_bytes"):
        raise ValueError(
            "a name must start with a letter, hold only letters, digits and _, be no "
            "Python keyword and not end in _bytes, since it becomes the name of an "
            f"input or output of the served model. Received: {value!r}. Give the name "
            "of the source's column as `column:`"
        )
    return value


Name = Annotated[str, pydantic.AfterValidator(_check_name)]
"""The name of a feature, task or side table; survives a TensorFlow signature."""
