"""What preparing a data set did, in numbers that must add up."""

from __future__ import annotations

import dataclasses
import json
import pathlib

from tfmtl.errors import DataError
from tfmtl.files import atomic_write

SUMMARY_FILE = "summary.json"


@dataclasses.dataclass(frozen=True)
class PrepareSummary:
    """Counts of one `prepare`; rows_read = written + duplicates + rejected.

    Attributes:
        name: The adapter.
        rows_read: Lines of the log that were read (without headers and blank lines).
        rows_written: Rows in `logs/`.
        duplicates_dropped: Exact repetitions of a row.
        rows_rejected: Malformed lines, kept with their reason in `rejected.parquet`.
        positive_rates: Share of positives of each label among the rows written.
        rows_by_scenario: Rows written per scenario value.
        files: Raw files that were read.
        notes: Anything a user should know about this data set.
    """

    name: str
    rows_read: int
    rows_written: int
    duplicates_dropped: int
    rows_rejected: int
    positive_rates: dict[str, float]
    rows_by_scenario: dict[str, int] = dataclasses.field(default_factory=dict)
    files: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def check(self) -> None:
        """Raises where a row is unaccounted for.

        Raises:
            DataError: rows_read differs from the sum of the others.
        """
        total = self.rows_written + self.duplicates_dropped + self.rows_rejected
        if self.rows_read != total:
            raise DataError(
                f"{self.name}: {self.rows_read} rows were read, but "
                f"{self.rows_written} written + {self.duplicates_dropped} duplicates + "
                f"{self.rows_rejected} rejected = {total}"
            )

    def write(self, directory: pathlib.Path) -> None:
        """Writes `summary.json`."""
        text = json.dumps(dataclasses.asdict(self), indent=1) + "\n"
        atomic_write(directory / SUMMARY_FILE, text)
