"""Finds a publisher's files in a folder, or says which is missing and where to go."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

from tfmtl.errors import DataError


def find(
    raw: pathlib.Path, patterns: Sequence[str], what: str, source: str
) -> list[pathlib.Path]:
    """The files of the first pattern that fits any, in order of their names.

    Each pattern is tried plain and with `.gz`, in the folder and in folders below it.

    Args:
        raw: The user's folder of raw files.
        patterns: Glob patterns of file names, the preferred first.
        what: The publisher's name of the file, for the error.
        source: Where the publisher offers it.

    Raises:
        DataError: No such folder, or no file fits.
    """
    files = find_optional(raw, patterns)
    if not files:
        inside = sorted(p.name for p in raw.iterdir())[:20]
        raise DataError(
            f"`raw` must hold {what} (plain or .gz). Received: {str(raw)!r}, which "
            f"holds {inside}. The publisher offers it at {source}"
        )
    return files


def find_optional(raw: pathlib.Path, patterns: Sequence[str]) -> list[pathlib.Path]:
    """Like `find`, but an empty list where no file fits.

    Raises:
        DataError: No such folder.
    """
    if not raw.is_dir():
        raise DataError(
            "`raw` must be the folder with the publisher's files. Received: "
            f"{str(raw)!r}, which is no folder"
        )
    for pattern in patterns:
        for prefix in ("", "**/"):
            plain = {p.name: p for p in sorted(raw.glob(prefix + pattern))}
            packed = {
                p.name.removesuffix(".gz"): p
                for p in sorted(raw.glob(prefix + pattern + ".gz"))
            }
            found = packed | plain
            if found:
                return [found[name] for name in sorted(found)]
    return []
