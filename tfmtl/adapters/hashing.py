"""Random splits that are the same on every machine: a hash of the row's numbers."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

SPLIT_NAMES = ("train", "validation", "test")


def mix(numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
    """[rows] splitmix64's finaliser (Steele et al., OOPSLA 2014) of each number."""
    mixed = numbers.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return mixed ^ (mixed >> np.uint64(31))


def uniform(numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """[rows] a number in [0, 1) for each number, as good as drawn at random."""
    return (mix(numbers) >> np.uint64(11)).astype(np.float64) / 2.0**53


def split(
    numbers: npt.NDArray[np.int64], validation: float = 0.1, test: float = 0.1
) -> npt.NDArray[np.int64]:
    """[rows] 0 train, 1 validation, 2 test, by the hash of each number."""
    marks = [1 - validation - test, 1 - test]
    return np.digitize(uniform(numbers), marks).astype(np.int64)
