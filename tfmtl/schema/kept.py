"""Which values of a list a model reads, as one line of text.

The export names the second dimension of a list input with it, so that a client learns
it from the server's metadata, and cuts a long list as training did.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Literal

_TEXT = re.compile(r"(first|last) ([1-9]\d*) of (.+)")


@dataclasses.dataclass(frozen=True)
class Kept:
    """The end of a list that counts, and how much of it.

    Attributes:
        end: "first" for a set of values, "last" for a sequence, oldest event first.
        count: At most so many values.
        of: The input that decides: a position where it is missing is dropped from all
            lists aligned with it, and does not count.
    """

    end: Literal["first", "last"]
    count: int
    of: str

    def __str__(self) -> str:
        """Such as "last 50 of history_item"."""
        return f"{self.end} {self.count} of {self.of}"

    @classmethod
    def parse(cls, text: str) -> Kept | None:
        """What `str` wrote; None for any other text."""
        found = _TEXT.fullmatch(text)
        if found is None:
            return None
        end: Literal["first", "last"] = "first" if found[1] == "first" else "last"
        return cls(end, int(found[2]), found[3])
