"""The manifests: round trips, what a damaged one is answered with, served inputs."""

from __future__ import annotations

import json

import pytest

from tfmtl.errors import DataError
from tfmtl.schema.dataset import DatasetSpec
from tfmtl.schema.manifest import (
    DATASET_FILE,
    EXPORT_FILE,
    DatasetManifest,
    ExportManifest,
    LabelStats,
    RecordColumn,
    RecordFile,
    RowCounts,
    SplitStats,
    VocabularyStats,
    read_dataset,
    read_export,
    served_inputs,
    write_manifest,
)


@pytest.fixture
def manifest(document) -> DatasetManifest:
    dataset = DatasetSpec.model_validate(document["dataset"])
    part = RecordFile(path="train/part-0", rows=6, blocks=(4, 2))
    return DatasetManifest(
        tfmtl_version="0.1.0",
        schema_hash=dataset.fingerprint(),
        dataset=dataset,
        block_rows=4,
        columns=(
            RecordColumn(name="user_id", dtype="int", rows=12, vocabulary="user_id"),
            RecordColumn(name="tags", dtype="int", shape="ragged", size=5, rows=9),
            RecordColumn(name="picture", dtype="float", shape="vector", size=4),
        ),
        vocabularies={"user_id": VocabularyStats(size=10, rows=12)},
        splits={
            "train": SplitStats(
                rows=6,
                files=(part,),
                tasks={"click": LabelStats(rows=4, total=1.0)},
                scenarios={"home": 5, "unknown": 1},
                cells={"click": {"home": LabelStats(rows=0, total=0.0)}},
                timestamp_min=1.5,
            )
        },
        counts=RowCounts(read=9, written=6, rejected=1, duplicates=1, dropped=1),
        rejected={"`price` is no number": 1},
        warnings=("feature 'x' nearly determines label 'y'",),
    )


def test_dataset_manifest_round_trip(tmp_path, manifest):
    write_manifest(manifest, tmp_path / DATASET_FILE)
    assert read_dataset(tmp_path) == manifest
    assert read_dataset(str(tmp_path)).dataset.fingerprint() == manifest.schema_hash


def test_export_manifest_round_trip(tmp_path, manifest):
    export = ExportManifest(
        tfmtl_version="0.1.0",
        versions={"tensorflow": "2.21.0"},
        name="shop",
        model="MMoE",
        schema_hash=manifest.schema_hash,
        dataset=manifest.dataset,
        inputs=served_inputs(manifest.dataset),
        outputs={"click": "probability of click"},
        scenarios=("home", "search"),
        metrics={"mean_task_auc": 0.7, "tasks": {"click": {"auc": None}}},
        parameters=10,
        steps=5,
        seed=7,
    )
    write_manifest(export, tmp_path / EXPORT_FILE)
    assert read_export(tmp_path) == export


def test_columns_are_found_by_name(manifest):
    assert manifest.column("tags").size == 5
    with pytest.raises(KeyError, match="nothing"):
        manifest.column("nothing")


def test_counts_balance_only_when_no_row_is_lost(manifest):
    assert manifest.counts.balanced
    for field in ("written", "rejected", "duplicates", "dropped"):
        lost = manifest.counts.model_copy(
            update={field: getattr(manifest.counts, field) - 1}
        )
        assert not lost.balanced, field


def test_a_rate_without_rows_is_unknown(manifest):
    stats = manifest.splits["train"]
    assert stats.tasks["click"].mean == 0.25
    assert stats.cells["click"]["home"].mean is None


def test_a_folder_that_is_no_dataset(tmp_path):
    with pytest.raises(DataError, match=r"`dataset` must be a dataset directory") as e:
        read_dataset(tmp_path)
    assert str(tmp_path) in str(e.value) and e.value.exit_code == 3
    with pytest.raises(DataError, match=r"`model` must be a model directory with a"):
        read_export(tmp_path / "absent")


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"format_version": 2}, "format_version"),
        ({"splits": None}, "splits"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_damaged_manifests_name_the_place(tmp_path, manifest, change, place):
    document = json.loads(manifest.model_dump_json()) | change
    (tmp_path / DATASET_FILE).write_text(json.dumps(document))
    with pytest.raises(DataError, match=rf"damaged or from another.*at {place}"):
        read_dataset(tmp_path)


def test_a_truncated_manifest(tmp_path, manifest):
    text = manifest.model_dump_json()
    (tmp_path / DATASET_FILE).write_text(text[: len(text) // 2])
    with pytest.raises(DataError, match="damaged"):
        read_dataset(tmp_path)


def test_served_inputs_are_the_raw_columns_in_order(document):
    dataset = DatasetSpec.model_validate(document["dataset"])
    found = [
        (i.name, i.dtype, i.shape, i.size, i.column) for i in served_inputs(dataset)
    ]
    assert found == [
        ("user_id", "string", "scalar", None, "user_id"),
        ("item_id", "string", "scalar", None, "item_id"),
        ("tags", "string", "list", 5, "tags"),
        ("history_item", "string", "list", 20, "hist_item"),
        ("history_age", "float", "list", 20, "hist_age"),
        ("price", "float", "scalar", None, "price"),
        ("rank", "float", "scalar", None, "rank"),
        ("when", "int64", "scalar", None, "timestamp"),
        ("picture", "float", "vector", 4, "picture"),
        ("scenario", "string", "scalar", None, "page"),
    ]


def test_without_a_scenario_there_is_no_such_input(document):
    del document["dataset"]["scenario"]
    dataset = DatasetSpec.model_validate(document["dataset"])
    assert "scenario" not in [i.name for i in served_inputs(dataset)]


def test_the_fingerprint_is_that_of_the_content(document):
    first = DatasetSpec.model_validate(document["dataset"])
    again = DatasetSpec.model_validate_json(first.model_dump_json())
    assert again.fingerprint() == first.fingerprint()
    document["dataset"]["features"][0]["dim"] = 9
    changed = DatasetSpec.model_validate(document["dataset"])
    assert changed.fingerprint() != first.fingerprint()
