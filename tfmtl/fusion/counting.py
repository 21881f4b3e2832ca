"""Places of positives without a sort, for lists that are scored again and again.

A positive's place is a count of comparisons with the other rows of its list. Which rows
those are is laid out once, by lists of about one length; another score then costs a
gather, a comparison and a sum. Only lists with a positive are touched.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tfmtl.metrics.arrays import Ints
from tfmtl.metrics.lists import Lists, Places, find_places

_MOST = 24
"""Comparisons for each row above which a sort is quicker."""


class _Block(NamedTuple):
    """Positives in lists of at most L rows.

    Attributes:
        positive: [P'] which of the P positives.
        row: [P'] their rows in the caller's arrays.
        rivals: [L, P'] the rows of their lists; the row after the last one, N, where a
            list is shorter.
        others: [L, P'] whether a rival is a positive.
    """

    positive: Ints
    row: Ints
    rivals: Ints
    others: npt.NDArray[np.bool_]


class PlaceCounter:
    """Finds the places of the same positives under many scores.

    Args:
        lists: Of N rows.
        rows: N.
        hits: Count positives too, which all metrics but NDCG need.
    """

    def __init__(self, lists: Lists, rows: int, *, hits: bool) -> None:
        self._lists = lists
        self._hits = hits
        size = np.bincount(lists.of_row, minlength=lists.count)
        self.sorts = int(size[lists.of].sum()) > _MOST * max(len(lists.rows), 1)
        self._blocks = [] if self.sorts else list(_blocks(lists, size, rows))

    def __call__(self, scores: npt.NDArray[np.float32]) -> Places:
        """The places.

        Args:
            scores: [N + 1]; the last is below all others.

        Returns:
            As `find_places`; without `hits` the counts of positives are those of all.
        """
        if self.sorts:
            return find_places(self._lists, scores[:-1])
        count = len(self._lists.positive)
        found = np.zeros((4, count), dtype=np.int64)
        for block in self._blocks:
            rivals = scores[block.rivals]
            own = scores[block.row]
            above, tied = rivals > own, rivals == own
            masks = [above, tied]
            if self._hits:
                masks += [above & block.others, tied & block.others]
            for target, mask in zip(found, masks):
                target[block.positive] = mask.view(np.int8).sum(axis=0, dtype=np.int32)
        return Places(*(found if self._hits else (found[0], found[1], *found[:2])))


def _blocks(lists: Lists, size: Ints, rows: int) -> list[_Block]:
    begin = np.cumsum(size) - size
    mine = size[lists.of]
    # Lists of 2, 3-4, 5-8, 9-16 ... rows: at most half of a block is padding.
    level = np.ceil(np.log2(np.maximum(mine, 2))).astype(np.int64)
    padded = np.append(lists.rows, rows)
    flags = np.zeros(len(padded), dtype=bool)
    flags[lists.positive] = True
    blocks = []
    for number in np.unique(level):
        chosen = np.flatnonzero(level == number)
        longest = int(mine[chosen].max())
        offset = np.arange(longest)[:, None]
        place = np.where(
            offset < mine[chosen], begin[lists.of[chosen]] + offset, len(lists.rows)
        )
        blocks.append(
            _Block(
                chosen,
                lists.rows[lists.positive[chosen]],
                padded[place].astype(np.int32),
                flags[place],
            )
        )
    return blocks
