"""Census-income (KDD, UCI): the MMoE paper's data set, 299,285 people of 1994 and 1995.

"Census-Income (KDD)", UCI Machine Learning Repository, 2000; Ma et al., "Modeling Task
Relationships in Multi-task Learning with Multi-gate Mixture-of-Experts", KDD 2018.
Reads `census-income.data` and, where it is there, `census-income.test`; also the form
with a row number before the 42 fields. Labels: `income_high` (50,000 and over) and
`never_married`.

The test file is the test split, 10 % of the other one are for validation; without a
test file it is 80/10/10. `marital_status` is the source of a label and no input;
`tax_filer_status`, `family_status` and `household_summary` nearly are, so the
experiment leaves them out, and `instance_weight` is a survey weight. Equal rows stay.
"""

from __future__ import annotations

import pathlib

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tfmtl.adapters import hashing, locate, raw
from tfmtl.adapters.adult import set_aside, with_labels, with_split, write_people
from tfmtl.adapters.summary import PrepareSummary
from tfmtl.errors import DataError
from tfmtl.progress import Listener

SOURCE = "https://archive.ics.uci.edu/dataset/117/census+income+kdd"
_INTEGERS = {
    "age",
    "wage_per_hour",
    "capital_gains",
    "capital_losses",
    "dividends",
    "num_persons_worked",
    "weeks_worked",
    "year",
}
NAMES = [
    "age",
    "class_of_worker",
    "industry_code",
    "occupation_code",
    "education",
    "wage_per_hour",
    "enrolled_in_edu",
    "marital_status",
    "major_industry",
    "major_occupation",
    "race",
    "hispanic_origin",
    "sex",
    "member_of_union",
    "reason_unemployment",
    "full_or_part_time",
    "capital_gains",
    "capital_losses",
    "dividends",
    "tax_filer_status",
    "region_previous",
    "state_previous",
    "family_status",
    "household_summary",
    "instance_weight",
    "migration_msa",
    "migration_region",
    "migration_within",
    "same_house",
    "migration_sunbelt",
    "num_persons_worked",
    "parents_present",
    "country_father",
    "country_mother",
    "country_self",
    "citizenship",
    "own_business",
    "veterans_questionnaire",
    "veterans_benefits",
    "weeks_worked",
    "year",
    "income",
]
COLUMNS = {
    name: raw.INT if name in _INTEGERS else raw.OPTIONAL_STRING for name in NAMES
} | {"instance_weight": raw.OPTIONAL_FLOAT, "income": raw.STRING}


def prepare(
    source: pathlib.Path, out: pathlib.Path, listener: Listener
) -> PrepareSummary:
    """Writes `logs/` and `rejected.parquet`."""
    listener.stage("read", None)
    rejects = raw.Rejects()
    patterns = ["census-income.data", "census-income.sample"]
    files = locate.find(source, patterns, "census-income.data", SOURCE)[:1]
    files += locate.find_optional(source, ["census-income.test"])[:1]
    tables = [_people(file, rejects) for file in files]
    share = 0.0 if len(files) == 2 else 0.1
    split = hashing.split(np.arange(tables[0].num_rows), validation=0.1, test=share)
    split = np.concatenate([split, *(np.full(t.num_rows, 2) for t in tables[1:])])
    table = with_split(pa.concat_tables(tables), split)
    return write_people("census-income", table, files, rejects, out, listener)


def _people(file: pathlib.Path, rejects: raw.Rejects) -> pa.Table:
    table = raw.read_table(file, COLUMNS, rejects, names=_names(file), quoted=False)
    table, wrong = set_aside(
        table, pc.match_substring_regex(table["income"], r"^\s*-?\s*50000[.+]+\s*$")
    )
    rejects.add(file.name, wrong, ["income: neither - 50000. nor 50000+."] * len(wrong))
    return with_labels(table, pc.match_substring(table["income"], "50000+"))


def _names(file: pathlib.Path) -> list[str]:
    """The names of the fields, with or without a row number before them."""
    with raw.open_plain(file) as opened:
        fields = opened.readline().count(b",") + 1
    if fields == len(NAMES):
        return list(NAMES)
    if fields == len(NAMES) + 1:
        return ["number", *NAMES]
    raise DataError(
        f"{str(file)!r} must have {len(NAMES)} fields in a line, or a row number and "
        f"{len(NAMES)} fields. Received: {fields} in the first line"
    )
