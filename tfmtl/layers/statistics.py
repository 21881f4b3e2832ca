"""Forward passes that leave moving statistics as they are."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

_frozen: list[bool] = []


@contextlib.contextmanager
def frozen_statistics() -> Iterator[None]:
    """Layers called inside normalise as in training but update no moving moments.

    Those count one update a step: a second forward pass in training mode (for losses
    after an update, or for diagnostics) must not be another.
    """
    _frozen.append(True)
    try:
        yield
    finally:
        _frozen.pop()


def statistics_frozen() -> bool:
    """Whether a layer is called inside `frozen_statistics`."""
    return bool(_frozen)
