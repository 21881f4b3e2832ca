"""Which rows are kept: shares, determinism, counts; and the whole job with sampling."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from pipeline import plan, sampling
from pipeline.preprocess import run
from pipeline.validate import Place, Validator
from tests.unit.pipeline.records import frozen, read_blocks
from tfmtl.errors import ConfigError
from tfmtl.schema.dataset import DatasetSpec
from tfmtl.schema.load import parse_experiment
from tfmtl.schema.manifest import DatasetManifest
from tfmtl.schema.sampling import effects

ROWS = 4_000
SECTION: dict[str, Any] = {"keep": ["click"], "rate": 0.25}
DATASET: dict[str, Any] = {
    "features": [{"name": "item", "kind": "categorical"}],
    "scenario": {"column": "page", "values": ["a", "b"]},
    "tasks": [
        {"name": "click", "label": "click"},
        {"name": "buy", "label": "buy", "given": "click"},
        {
            "name": "watch",
            "label": "watch",
            "type": "regression",
            "observed_when": "click == 1",
        },
    ],
    "keys": {"row": "row", "timestamp": "time"},
    "split": {"by": "time", "validation": 0.2, "test": 0.2},
    "sampling": SECTION,
}


def spec(**changes: Any) -> DatasetSpec:
    return DatasetSpec.model_validate(DATASET | changes)


def frame(rows: int = ROWS) -> pd.DataFrame:
    random = np.random.default_rng(0)
    click = (random.random(rows) < 0.1).astype(int)
    return pd.DataFrame(
        {
            "row": [f"r{i}" for i in range(rows)],
            "item": [f"i{k}" for k in random.integers(0, 300, rows)],
            "page": random.choice(["a", "b", "c"], rows),
            "click": click,
            "buy": click * (random.random(rows) < 0.3),
            "watch": random.integers(0, 90, rows),
            "time": np.arange(rows),
        }
    )


def canonical(dataset: DatasetSpec, rows: pd.DataFrame) -> pa.Table:
    """Rows as the job checks them; none is refused."""
    batch = pa.RecordBatch.from_pandas(rows, preserve_index=False)
    place = Place(0, "log.parquet", np.arange(len(rows)))
    good, dead = Validator(dataset)(batch.select(Validator(dataset).columns), place)
    assert dead is None
    return pa.Table.from_batches([good])


def kept(dataset: DatasetSpec, rows: pd.DataFrame) -> np.ndarray:
    """Whether each row of a training split is kept."""
    table = canonical(dataset, rows)
    codes = np.zeros(len(rows), np.int8)
    return sampling.without_sampled_out(dataset, table, codes) == plan.TRAIN


def test_positives_stay_and_the_rate_is_met_per_scenario() -> None:
    rows = frame(20_000)
    rates = {"a": 0.1, "b": 1.0}
    found = kept(spec(sampling={**SECTION, "scenario_rates": rates}), rows)
    sure = (rows["click"] == 1).to_numpy()
    assert found[sure].all()
    for page, rate in (("a", 0.1), ("b", 1.0), ("c", 0.25)):
        among = found[~sure & (rows["page"] == page).to_numpy()]
        spread = np.sqrt(rate * (1 - rate) / len(among))
        assert abs(among.mean() - rate) <= 4 * spread, page


def test_a_row_is_decided_by_its_key_and_the_seed_alone() -> None:
    rows = frame()
    first = kept(spec(), rows)
    order = np.random.default_rng(1).permutation(ROWS)
    np.testing.assert_array_equal(kept(spec(), rows.iloc[order]), first[order])
    changed = rows.assign(item="other")
    np.testing.assert_array_equal(kept(spec(), changed), first)
    lower = kept(spec(sampling={**SECTION, "rate": 0.1}), rows)
    assert (first | ~lower).all() and lower.sum() < first.sum()
    other = kept(spec(sampling={**SECTION, "seed": 1}), rows)
    sure = (rows["click"] == 1).to_numpy()
    agree = (other == first)[~sure].mean()
    assert agree == pytest.approx(0.25**2 + 0.75**2, abs=0.04), "independent"


def test_without_a_key_the_content_decides() -> None:
    dataset = spec(keys={"timestamp": "time"})
    rows = frame()
    first = kept(dataset, rows)
    assert first.mean() == pytest.approx(0.1 + 0.9 * 0.25, abs=0.03)
    np.testing.assert_array_equal(kept(dataset, rows.iloc[::-1]), first[::-1])
    changed = kept(dataset, rows.assign(item="other"))
    assert (changed != first).mean() > 0.2
    # A missing key falls back to it, too.
    some = rows.assign(row=rows["row"].where(np.arange(ROWS) % 2 == 0, None))
    mixed = kept(spec(), some)
    np.testing.assert_array_equal(mixed[::2], kept(spec(), rows)[::2])
    assert 0.2 < mixed[1::2].mean() < 0.45


def test_sampling_does_not_follow_a_split_by_the_same_key() -> None:
    rows = frame(20_000)
    by_key = {"by": "hash", "column": "row", "validation": 0.3, "test": 0.3}
    dataset = spec(split=by_key)
    batch = pa.RecordBatch.from_pandas(rows, preserve_index=False)
    place = Place(0, "log.parquet", np.arange(len(rows)))
    good, _ = Validator(dataset)(batch.select(Validator(dataset).columns), place)
    table = pa.Table.from_batches([good])
    split = np.asarray(table[plan.SPLIT].to_numpy())
    codes = sampling.without_sampled_out(dataset, table, split)
    assert (codes[split != plan.TRAIN] == split[split != plan.TRAIN]).all()
    sure = (rows["click"] == 1).to_numpy()
    among = codes[(split == plan.TRAIN) & ~sure] == plan.TRAIN
    assert among.mean() == pytest.approx(0.25, abs=0.03)


def test_classes_are_counted_before_sampling_too() -> None:
    kind = {"name": "kind", "label": "kind", "type": "multiclass", "classes": 3}
    dataset = spec(
        tasks=[*DATASET["tasks"], kind],
        sampling={**SECTION, "correction": "weights"},
    )
    rows = frame()
    # All clicked rows, which are kept, are of the last class.
    rows["kind"] = np.where(rows["click"] == 1, 2, np.arange(ROWS) % 2)
    table = canonical(dataset, rows)
    codes = sampling.without_sampled_out(dataset, table, np.zeros(ROWS, np.int8))
    stats, _ = sampling.finish(dataset, [sampling.count(dataset, table, codes)])
    assert stats is not None
    wanted = np.bincount(rows["kind"], minlength=3)
    assert stats.tasks["kind"].classes == tuple(wanted)
    written = np.bincount(rows["kind"][codes == plan.TRAIN], minlength=3)
    assert written[2] / written.sum() > 2 * wanted[2] / wanted.sum()
    for page, where in (("a", "a"), ("b", "b"), ("unknown", "c")):
        own = np.bincount(rows["kind"][rows["page"] == where], minlength=3)
        assert stats.cells["kind"][page].classes == tuple(own)
    assert stats.tasks["click"].classes is None


def preprocess(folder: pathlib.Path, name: str, section: Any, **how: Any) -> Any:
    log = folder / "log.parquet"
    if not log.exists():
        rows = frame()
        rows.loc[5, "click"] = 7  # one row that no label allows
        rows.to_parquet(log)
    document = {k: v for k, v in (DATASET | {"sampling": section}).items() if v}
    experiment = parse_experiment(
        {"name": "small", "dataset": document, "model": {"class": "MMoE"}}
    )
    manifest = run(experiment, str(log), folder / name, block_rows=500, **how)
    return experiment, manifest


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One log, whole and sampled; sampled again into other shards."""
    folder = tmp_path_factory.mktemp("sampled")
    found: dict[str, Any] = {"folder": folder}
    section = {**SECTION, "scenario_rates": {"b": 0.5}}
    found["whole"] = preprocess(folder, "whole", None)[1]
    found["sampled"] = preprocess(folder, "sampled", section)[1]
    found["again"] = preprocess(folder, "again", section, shards=3)[1]
    return found


def test_counts_add_up_in_each_split(jobs: dict[str, Any]) -> None:
    whole: DatasetManifest = jobs["whole"]
    sampled: DatasetManifest = jobs["sampled"]
    counts = sampled.counts
    assert counts.read == ROWS and counts.rejected == 1
    assert counts.balanced and counts.sampled_out > 1_000
    assert not counts.model_copy(update={"sampled_out": 0}).balanced
    for name, split in sampled.splits.items():
        assert split.rows + split.sampled_out == whole.splits[name].rows
        assert (split.sampled_out > 0) == (name == "train")
    stats = sampled.sampling
    assert stats is not None and whole.sampling is None
    assert stats.rows == whole.splits["train"].rows
    assert stats.kept == sampled.splits["train"].rows
    assert [s.rate for s in stats.strata.values()] == [0.25, 0.5, 0.25]
    # Base rates: those of what was written, and those before.
    assert stats.tasks == whole.splits["train"].tasks
    assert stats.cells == whole.splits["train"].cells
    written = sampled.splits["train"].tasks["click"]
    assert written.total == stats.tasks["click"].total == stats.sure
    assert written.rows == sampled.splits["train"].rows
    assert stats.exposed["click"] == stats.rows - stats.sure
    assert stats.exposed["buy"] == stats.exposed["watch"] == 0


def test_the_job_writes_the_rows_it_says(jobs: dict[str, Any]) -> None:
    folder = jobs["folder"]
    rows = {n: read_blocks(folder / n, jobs[n], "train") for n in ("whole", "sampled")}
    keys = {n: {r["key/row"] for r in part} for n, part in rows.items()}
    positive = {r["key/row"] for r in rows["whole"] if r["label/click"] == 1}
    assert positive < keys["sampled"] < keys["whole"]
    for split in ("validation", "test"):
        whole, sampled = (
            sorted(r["key/row"] for r in read_blocks(folder / n, jobs[n], split))
            for n in ("whole", "sampled")
        )
        assert whole == sampled
    again = read_blocks(folder / "again", jobs["again"], "train")
    assert frozen(again) == frozen(rows["sampled"])
    assert jobs["again"].sampling == jobs["sampled"].sampling
    assert jobs["sampled"].content_id != jobs["whole"].content_id


def test_table_and_effects_come_from_the_manifest(
    jobs: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    from tfmtl.cli.datasets import print_manifest

    sampled: DatasetManifest = jobs["sampled"]
    print_manifest(sampled)
    out = capsys.readouterr().out
    assert f"{sampled.counts.sampled_out:,} sampled out" in out
    assert "before sampling" in out
    stats, asked = sampled.sampling, sampled.dataset.sampling
    assert stats is not None and asked is not None
    assert effects(sampled.dataset.tasks, asked, stats.exposed) == {
        "click": "shift",
        "buy|click": "none",
        "buy": "product",
        "watch": "none",
    }
    assert not [w for w in sampled.warnings if "sampling" in w]


def test_training_refuses_what_no_offset_corrects(tmp_path: pathlib.Path) -> None:
    from tfmtl.workflow.calibrators import check_sampling

    section = {"keep": ["buy"], "rate": 0.5}
    _, manifest = preprocess(tmp_path, "wrong", section)
    assert any("`correction: weights`" in w for w in manifest.warnings)
    with pytest.raises(ConfigError, match=r"outputs \['buy', 'click', 'watch'\]"):
        check_sampling(manifest, refit=False)
    for correction in ("weights", "none"):
        dataset = manifest.dataset.model_copy(
            update={
                "sampling": manifest.dataset.sampling.model_copy(
                    update={"correction": correction}
                )
            }
        )
        right = manifest.model_copy(update={"dataset": dataset})
        check_sampling(right, refit=False)
        with pytest.raises(ConfigError, match="`refit` trains on"):
            check_sampling(right, refit=True)
