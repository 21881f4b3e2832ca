"""What a publisher lets anyone fetch: where it is, and how to tell it is whole."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class Source:
    """One file to fetch.

    Attributes:
        url: Where the publisher has it.
        file: Its name in the output folder.
        md5: Of the whole file; None where the publisher tells none.
        size: In bytes; None where unknown, then the server's word counts.
        members: Files inside an archive to unpack, with their MD5 where known. Empty:
            an archive is unpacked whole, anything else stays as it is.
    """

    url: str
    file: str
    md5: str | None = None
    size: int | None = None
    members: Mapping[str, str | None] = dataclasses.field(default_factory=dict)
