"""A small model from a CSV file: its card, and its scores of files with bad rows."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import pathlib
import shutil
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from tests.integration import killed
from tfmtl import workflow
from tfmtl._keras import tf
from tfmtl.errors import ConfigError, DataError
from tfmtl.export.saved_model import versions_in
from tfmtl.schema.load import load_experiment
from tfmtl.schema.manifest import read_export

ROWS = 400
COLUMNS = ("row", "item", "price", "time", "page", "clicked", "bought")
EXPERIMENT: dict[str, Any] = {
    "name": "shop",
    "seed": 1,
    "dataset": {
        "features": [
            {"name": "item", "kind": "categorical", "dim": 2},
            {"name": "price", "kind": "numeric"},
        ],
        "scenario": {"column": "page", "values": ["home", "search"]},
        "tasks": [
            {"name": "click", "label": "clicked"},
            {"name": "buy", "label": "bought", "given": "click"},
            {"name": "help", "label": "clicked", "role": "auxiliary"},
        ],
        "keys": {"row": "row", "timestamp": "time"},
        "split": {"by": "time", "validation": 0.2, "test": 0.2},
    },
    "model": {
        "class": "SharedBottom",
        "config": {"bottom_units": [4], "tower_units": []},
    },
    "training": {"batch_size": 64, "epochs": 1},
}
SERVED = ["buy", "buy|click", "click"]


@dataclasses.dataclass(frozen=True)
class Shop:
    """What the chain made, to be read only.

    Attributes:
        root: The folder of everything.
        log: The CSV file.
        dataset: The dataset directory.
        run: A finished run, not refitted.
        model: Base directory of the export, version 1 in it.
    """

    root: pathlib.Path
    log: pathlib.Path
    dataset: pathlib.Path
    run: pathlib.Path
    model: pathlib.Path


def _rows(count: int, seed: int) -> list[list[Any]]:
    draw = np.random.default_rng(seed)
    clicked = (draw.random(count) < 0.5).astype(int)
    bought = clicked * (draw.random(count) < 0.5)
    rows = []
    for n in range(count):
        item, price = f"i{draw.integers(9)}", round(float(draw.random()), 3)
        page = ("home", "search")[n % 2]
        rows.append([f"r{n}", item, price, n, page, clicked[n], bought[n]])
    return rows


def _write(path: pathlib.Path, rows: list[list[Any]], columns: Any = COLUMNS) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([list(columns), *rows])


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    from pipeline.preprocess import run as preprocess

    root = tmp_path_factory.mktemp("shop")
    made = Shop(root, *(root / n for n in ("log.csv", "dataset", "run", "model")))
    _write(made.log, _rows(ROWS, 0))
    (root / "shop.yaml").write_text(yaml.safe_dump(EXPERIMENT))
    experiment = load_experiment(root / "shop.yaml")
    preprocess(experiment, str(made.log), made.dataset)
    workflow.train(experiment, made.dataset, made.run)
    workflow.export(made.run, made.model)
    return made


# --- the export ----------------------------------------------------------------------


def _signature(version: pathlib.Path) -> list[str]:
    loaded = tf.saved_model.load(str(version))
    return sorted(loaded.signatures["serving_default"].structured_outputs)


def test_the_card_lists_what_the_signature_has(
    shop: Shop, tfmtl: Callable[..., Any], tmp_path: pathlib.Path
) -> None:
    card = read_export(shop.model / "1")
    assert sorted(card.outputs) == _signature(shop.model / "1") == SERVED
    assert not card.refit
    # The same run, asked for one task only.
    run = tmp_path / "run"
    shutil.copytree(shop.run, run)
    asked = yaml.safe_load((run / "experiment.yaml").read_text())
    asked["export"] = {"outputs": ["help"]}
    (run / "experiment.yaml").write_text(yaml.safe_dump(asked))
    result = tfmtl("export", run, "--output", tmp_path / "model")
    assert result.code == 0, result.err
    assert result.out.strip().endswith("; outputs: help")
    version = tmp_path / "model" / "1"
    assert sorted(read_export(version).outputs) == _signature(version) == ["help"]


def test_metrics_of_a_report_and_the_refit_are_in_the_card(
    shop: Shop, tfmtl: Callable[..., Any], tmp_path: pathlib.Path
) -> None:
    run, report = tmp_path / "run", tmp_path / "report.json"
    shutil.copytree(shop.run, run)
    command = ["train", shop.root / "shop.yaml", "--dataset", shop.dataset]
    result = tfmtl(*command, "--run", run, "--resume", "--refit")
    assert result.code == 0, result.err
    assert "refitted on train + validation" in result.out
    assert tfmtl("evaluate", run, "--json", report).code == 0
    export = ["export", run, "--output", tmp_path / "model"]
    result = tfmtl(*export, "--metrics", report)
    assert result.code == 0, result.err
    assert "refitted" in result.out
    card = read_export(tmp_path / "model" / "1")
    assert card.refit
    assert card.metrics == json.loads(report.read_text())
    assert tfmtl(*export).code == 0
    plain = read_export(tmp_path / "model" / "2")
    assert plain.refit and "mean/auc" in plain.metrics


@pytest.mark.parametrize(
    ("content", "code", "message"),
    [
        ("{", 3, "is no JSON"),
        ("[1]", 3, "must hold an object"),
        ("{}", 2, "`metrics` must be a report"),
        ('{"tasks": {"click": {}}}', 2, "['click']"),
    ],
)
def test_metrics_that_are_no_report_of_the_run(
    shop: Shop,
    tfmtl: Callable[..., Any],
    tmp_path: pathlib.Path,
    content: str,
    code: int,
    message: str,
) -> None:
    (tmp_path / "report.json").write_text(content)
    command = ["export", shop.run, "--output", tmp_path / "model"]
    result = tfmtl(*command, "--metrics", tmp_path / "report.json")
    assert result.code == code and message in result.err
    assert not (tmp_path / "model").exists()


def test_a_killed_export_is_no_version_and_the_next_one_clears_it(
    shop: Shop, tmp_path: pathlib.Path
) -> None:
    models, log = tmp_path / "models", tmp_path / "log"
    command: list[Any] = ["export", shop.run, "--output", models]
    point = "export/before-rename"
    assert killed.is_killed([*command, "--version", "7"], log, point), log.read_text()
    assert killed.is_killed(command, log, point), log.read_text()
    # The second one has cleared away what the first one left.
    (left,) = models.iterdir()
    assert left.name.startswith(".1.") and left.name.endswith(".partial")
    assert versions_in(models) == {}
    with pytest.raises(ConfigError, match="run directory, a version of"):
        workflow.score(models, str(shop.log), tmp_path / "scores.parquet")
    workflow.export(shop.run, models)
    assert [p.name for p in models.iterdir()] == ["1"]
    assert list(versions_in(models)) == [1]


# --- scores --------------------------------------------------------------------------


def _bad_csv(path: pathlib.Path) -> None:
    """Six rows, of which a line and a value are no good."""
    rows = [r[:5] for r in _rows(6, 1)]
    rows[2][2] = "dear"
    rows[4] = [*rows[4], "too", "many"]
    _write(path, rows, COLUMNS[:5])


@pytest.mark.parametrize("with_what", ["model", "run"])
def test_bad_rows_are_counted_and_set_aside(
    shop: Shop, tfmtl: Callable[..., Any], tmp_path: pathlib.Path, with_what: str
) -> None:
    file, output = tmp_path / "new.csv", tmp_path / "scores.parquet"
    _bad_csv(file)
    command = ["score", getattr(shop, with_what), "--input", file, "--output", output]
    result = tfmtl(*command)
    assert result.code == 0, result.err
    assert "4 of 6 rows scored" in result.out
    assert "2 rows rejected" in result.out and "not a number" in result.err
    scores = pq.read_table(output)
    assert scores.column_names == ["row", *SERVED]
    assert scores["row"].to_pylist() == ["r0", "r1", "r3", "r5"]
    assert all(scores[n].null_count == 0 for n in SERVED)
    dead = pq.read_table(tmp_path / "scores.rejected.parquet").to_pylist()
    assert sorted(d["reason"] for d in dead) == [
        "column 'price': not a number",
        "wrong number of fields",
    ]
    by_reason = {d["reason"]: d for d in dead}
    line = by_reason["wrong number of fields"]
    assert line["line"].startswith("r4,") and line["line"].endswith(",too,many")
    value = by_reason["column 'price': not a number"]
    assert (value["file_row"], value["price"], value["row"]) == (2, "dear", "r2")
    assert all(d["file"] == str(file) for d in dead)
    counts = json.loads((tmp_path / "scores.counts.json").read_text())
    assert counts == {
        "read": 6,
        "scored": 4,
        "rejected": 2,
        "reasons": {d["reason"]: 1 for d in dead},
    }
    # The good rows are those of a file without bad ones.
    good = tmp_path / "good.csv"
    kept = [r[:5] for n, r in enumerate(_rows(6, 1)) if n not in (2, 4)]
    _write(good, kept, COLUMNS[:5])
    assert tfmtl(*command[:3], good, "--output", output).code == 0
    np.testing.assert_allclose(
        pq.read_table(output)["click"].to_numpy(), scores["click"].to_numpy(), rtol=1e-6
    )
    assert not (tmp_path / "scores.rejected.parquet").exists(), "of another file"
    counts = json.loads((tmp_path / "scores.counts.json").read_text())
    assert counts == {"read": 4, "scored": 4, "rejected": 0, "reasons": {}}


def test_rows_without_a_key_say_where_they_stood(
    shop: Shop, tmp_path: pathlib.Path
) -> None:
    prices: list[Any] = ["1", "x", "3", None]
    table = pa.table({"item": ["i1"] * 4, "price": prices, "page": ["home"] * 4})
    pq.write_table(table, tmp_path / "new.parquet")
    counts = workflow.score(
        shop.model, str(tmp_path / "new.parquet"), tmp_path / "scores.parquet"
    )
    assert (counts.read, counts.written, counts.rejected) == (4, 3, 1)
    assert counts.balanced
    scores = pq.read_table(tmp_path / "scores.parquet")
    assert scores["file_row"].to_pylist() == [0, 2, 3]
    assert set(scores["file"].to_pylist()) == {str(tmp_path / "new.parquet")}


def test_nothing_but_bad_rows(shop: Shop, tmp_path: pathlib.Path) -> None:
    file = tmp_path / "new.csv"
    _write(file, [["r1", "i1", "dear", "0", "home"]], COLUMNS[:5])
    with pytest.raises(DataError, match=r"all 1 rows were rejected; .*'price'"):
        workflow.score(shop.model, str(file), tmp_path / "scores.parquet")
    assert os.listdir(tmp_path) == ["new.csv"]


def test_a_moved_dataset_is_found(
    shop: Shop, tfmtl: Callable[..., Any], tmp_path: pathlib.Path
) -> None:
    run, output = tmp_path / "run", tmp_path / "scores.parquet"
    shutil.copytree(shop.run, run)
    facts = json.loads((run / "run.json").read_text())
    facts["dataset"] = str(tmp_path / "gone")
    (run / "run.json").write_text(json.dumps(facts))
    command = ["score", run, "--input", shop.log, "--output", output]
    result = tfmtl(*command)
    assert result.code == 3 and "gone" in result.err
    result = tfmtl(*command, "--dataset", shop.dataset)
    assert result.code == 0, result.err
    assert pq.read_table(output).num_rows == ROWS
    command[1] = shop.model
    result = tfmtl(*command, "--dataset", shop.dataset)
    assert result.code == 2 and "`dataset` is for a run" in result.err
