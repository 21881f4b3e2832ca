"""How `models` and `balancers` print what there is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tfmtl.cli.base import print_json
from tfmtl.cli.console import print_table


def show(title: str, entries: Sequence[Mapping[str, str]], *, as_json: bool) -> None:
    """Prints a catalogue.

    Args:
        title: Of the table.
        entries: With the same keys in all of them, such as `name` and `summary`.
        as_json: Print a list of these objects instead of a table.
    """
    columns = list(entries[0])
    if as_json:
        print_json([dict(entry) for entry in entries])
    else:
        titles = [c.replace("_", " ") for c in columns]
        print_table(title, titles, [[entry[c] for c in columns] for entry in entries])
