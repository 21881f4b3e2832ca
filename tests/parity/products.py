"""How much a function multiplies, by the shapes of its matrix products."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest import mock

from tfmtl._keras import tf


def multiplications(function: Callable[..., Any], *arguments: Any) -> int:
    """Multiply-adds of the matrix products and einsums of one eager call.

    The last axis of the first factor must be the one that is summed over.
    """
    done = 0

    def counted(product: Callable[..., Any], first: int) -> Callable[..., Any]:
        def call(*factors: Any, **settings: Any) -> Any:
            nonlocal done
            result = product(*factors, **settings)
            done += int(tf.size(result)) * int(factors[first].shape[-1])
            return result

        return call

    with (
        mock.patch.object(tf, "matmul", counted(tf.matmul, 0)),
        mock.patch.object(tf, "einsum", counted(tf.einsum, 1)),
    ):
        function(*arguments)
    return done
