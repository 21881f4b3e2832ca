"""Moving averages of what only some tasks have in a batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tfmtl._keras import tf


class Averages(tf.Module):
    """Exponential moving averages, each corrected by its own number of updates.

        m <- decay * m + (1 - decay) * x,   from m = 0, read as m / (1 - decay^k)

    Methods that leave the correction out rely on ratios, in which it cancels while all
    tasks were present at all k steps. Tasks may be absent here: k is each entry's own.

    Args:
        shape: Of the entries.
        decay: In [0, 1); 0 keeps the last value.
        name: Of the variables.
        state: Makes a variable of a name and values: a balancer's `state`.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        decay: float,
        name: str,
        state: Callable[[str, Any], Any],
    ) -> None:
        super().__init__(name=name)
        self.decay = decay
        self.sums = state(f"{name}_sums", tf.zeros(shape, tf.float64))
        self.counts = state(f"{name}_counts", tf.zeros(shape, tf.float64))

    def update(self, places: Any, values: Any) -> Any:
        """Takes values in, and answers with the averages of their entries.

        Args:
            places: [..., r] int32, places among the entries, none twice.
            values: [...] float64.

        Returns:
            [...] float64, corrected.
        """
        sums = self.decay * entries(self.sums, places)
        sums += (1.0 - self.decay) * values
        counts = entries(self.counts, places) + 1.0
        assign_at(self.sums, places, sums)
        assign_at(self.counts, places, counts)
        return sums / (1.0 - self.decay**counts)

    def read(self, places: Any) -> Any:
        """The corrected averages of entries; 0 where there was no value yet."""
        left = 1.0 - self.decay ** entries(self.counts, places)
        return tf.math.divide_no_nan(entries(self.sums, places), left)


def entries(variable: Any, places: Any) -> Any:
    """Entries [...] of a variable at places [..., r]."""
    return tf.gather_nd(tf.convert_to_tensor(variable), places)


def assign_at(variable: Any, places: Any, values: Any) -> None:
    """Assigns entries of a small variable.

    By a whole assignment, which variables of every distribution strategy can do.

    Args:
        variable: Of any shape.
        places: [..., r] int32.
        values: [...].
    """
    held = tf.convert_to_tensor(variable)
    variable.assign(tf.tensor_scatter_nd_update(held, places, values))


def task_places(chosen: Any, group: int) -> Any:
    """Places [n, 2] of tasks in state of shape [G, T].

    Args:
        chosen: [n] int32.
        group: Of variables.
    """
    return tf.stack([tf.fill(tf.shape(chosen), group), chosen], axis=1)


def pair_places(chosen: Any, group: int) -> Any:
    """Places [n, n, 3] of pairs of tasks in state of shape [G, T, T]."""
    first, second = tf.meshgrid(chosen, chosen, indexing="ij")
    return tf.stack([tf.fill(tf.shape(first), group), first, second], axis=-1)
