"""Child seeds by hash, so that no two siblings ever start alike."""

from __future__ import annotations

import hashlib


def child_seed(seed: int, *path: str | int) -> int:
    """A 31-bit seed for the part of a model that `path` names.

    Stable over machines and versions, independent of the order in which parts are made.

    >>> child_seed(0, "experts", 0) != child_seed(0, "experts", 1)
    True
    """
    text = "/".join(str(p) for p in (seed, *path))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest()) >> 1
