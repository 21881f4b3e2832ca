"""The setting of architectures whose loss must be on the joint probability."""

from __future__ import annotations

from typing import Any

import pydantic


def joint_only(reason: str) -> pydantic.BeforeValidator:
    """Refuses `given_loss: conditional` with the architecture's reason.

    Args:
        reason: Why not, as a clause.
    """

    def check(value: Any) -> Any:
        if value != "joint":
            raise ValueError(
                "must be 'joint', the loss of `buy` over all rows: "
                f"{reason}. Received: {value!r}"
            )
        return value

    return pydantic.BeforeValidator(check)
