"""How `models` and `balancers` print what there is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tfmtl.cli.base import print_json
from tfmtl.cli.console import print_table


def show(title: str, entries: Sequence[Mapping[str, str]], *, as_json: bool) -> None:
    """Prints a catalogue.

    Args:
        title: Of the table.
        entries: Each with `name`, `summary` and `citation`.
        as_json: Print a list of these objects instead of a table.
    """
    columns = ("name", "summary", "citation")
    if as_json:
        print_json([{c: entry[c] for c in columns} for entry in entries])
    else:
        print_table(title, columns, [[entry[c] for c in columns] for entry in entries])
