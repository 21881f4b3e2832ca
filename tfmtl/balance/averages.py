"""Moving averages of what only some tasks have in a batch."""

from __future__ import annotations

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
    """

    def __init__(self, shape: tuple[int, ...], decay: float, name: str) -> None:
        super().__init__(name=name)
        self.decay = decay
        zeros = tf.zeros(shape, tf.float64)
        self.sums = tf.Variable(zeros, trainable=False, name=f"{name}_sums")
        self.counts = tf.Variable(zeros, trainable=False, name=f"{name}_counts")

    def update(self, places: Any, values: Any) -> Any:
        """Takes values in, and answers with the averages of their entries.

        Args:
            places: [..., r] int32, places among the entries, none twice.
            values: [...] float64.

        Returns:
            [...] float64, corrected.
        """
        sums = self.decay * tf.gather_nd(self.sums, places)
        sums += (1.0 - self.decay) * values
        counts = tf.gather_nd(self.counts, places) + 1.0
        self.sums.scatter_nd_update(places, sums)
        self.counts.scatter_nd_update(places, counts)
        return sums / (1.0 - self.decay**counts)

    def read(self, places: Any) -> Any:
        """The corrected averages of entries; 0 where there was no value yet."""
        left = 1.0 - self.decay ** tf.gather_nd(self.counts, places)
        return tf.math.divide_no_nan(tf.gather_nd(self.sums, places), left)


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
