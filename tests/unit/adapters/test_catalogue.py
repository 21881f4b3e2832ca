"""The catalogue, the worked experiments and `describe`."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.unit.adapters import raws
from tfmtl.adapters import catalogue, describe
from tfmtl.adapters.summary import PrepareSummary
from tfmtl.errors import ConfigError, DataError
from tfmtl.schema.dataset import raw_columns
from tfmtl.schema.load import load_experiment

EXPERIMENTS = pathlib.Path(catalogue.__file__).parents[1] / "experiments"


def test_every_worked_experiment_loads_and_is_known():
    files = {p.stem for p in EXPERIMENTS.glob("*.yaml")}
    named = {e for a in catalogue.ADAPTERS for e in a.experiments}
    assert files == named | {"simulated"}
    for stem in files:
        assert load_experiment(EXPERIMENTS / f"{stem}.yaml").name == stem


def test_find_suggests():
    assert catalogue.find("ciao").name == "ciao"
    with pytest.raises(ConfigError, match="Did you mean 'kuairand'"):
        catalogue.find("kuairnd")


def test_import_is_light():
    code = (
        "import sys, tfmtl.adapters.catalogue;"
        "print([m for m in ('tensorflow', 'numpy', 'pyarrow', 'pandas', 'scipy')"
        " if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=EXPERIMENTS.parents[1],
    )
    assert done.stdout.strip() == "[]"


def test_prepared_folder_is_whole_and_not_overwritten(tmp_path):
    raws.write_movielens_100k(tmp_path, [(1, 1, 5, 10), (2, 1, 3, 11)])
    out = tmp_path / "out"
    catalogue.prepare("movielens-100k", tmp_path, out)
    names = sorted(p.name for p in out.iterdir())
    assert names == [
        "experiment.yaml",
        "logs",
        "movies.parquet",
        "rejected.parquet",
        "summary.json",
        "users.parquet",
    ]
    spec = load_experiment(out / "experiment.yaml").dataset
    columns = pq.read_table(out / "logs").column_names
    assert {c for f in spec.features for c in raw_columns(f)} <= set(columns)
    with pytest.raises(ConfigError, match="holds files"):
        catalogue.prepare("movielens-100k", tmp_path, out)
    catalogue.find("movielens-100k").prepare(tmp_path, out, overwrite=True)


def test_the_listener_hears_of_every_row(tmp_path):
    class Ears:
        stages, rows = [], 0

        def stage(self, name, total=None):
            self.stages.append(name)

        def advance(self, amount=1):
            self.rows += amount

        def note(self, text):
            pass

    raws.write_kuairand(tmp_path, raws.kuairand_rows(30))
    ears = Ears()
    summary = catalogue.prepare("kuairand", tmp_path, tmp_path / "o", listener=ears)
    assert ears.rows == summary.rows_written and "write" in ears.stages


def test_a_row_unaccounted_for_is_an_error():
    with pytest.raises(DataError, match="10 rows were read, but 7 written"):
        PrepareSummary("x", 10, 7, 1, 1, {}).check()
    PrepareSummary("x", 10, 7, 1, 2, {}).check()


def test_describe_prepared_and_files(tmp_path):
    raws.write_movielens_100k(tmp_path, [(1, 1, 5, 10), (2, 1, 3, 11), (1, 2, 5, 12)])
    catalogue.prepare("movielens-100k", tmp_path, tmp_path / "out")
    found = describe.describe(tmp_path / "out")
    assert found["kind"] == "prepared" and found["rows"] == 3
    assert found["summary"]["name"] == "movielens-100k"
    columns = {c["name"]: c for c in found["columns"]}
    assert (columns["rating"]["least"], columns["rating"]["most"]) == (3, 5)
    assert columns["rating"]["top"][0] == ("5", 2)
    pq.write_table(pa.table({"a": [1, None, 3, None]}), tmp_path / "a.parquet")
    column = describe.describe(tmp_path / "a.parquet")["columns"][0]
    assert column["null_share"] == 0.5 and column["distinct"] == 2


def test_describe_says_what_it_wants(tmp_path):
    with pytest.raises(DataError, match="not there"):
        describe.describe(tmp_path / "absent")
    with pytest.raises(DataError, match="Parquet or CSV"):
        describe.describe(tmp_path)
