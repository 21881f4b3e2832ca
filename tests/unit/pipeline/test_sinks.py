"""Counts of a split: what the manifest says about its labels."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from pipeline.sinks import Cells
from tests.unit.pipeline.tiny import spec


def _cells(labels: list[float], scenario: list[int]) -> Cells:
    tasks = [
        {"name": "kind", "label": "k", "type": "multiclass", "classes": 3},
        {"name": "click", "label": "click"},
    ]
    dataset = spec(tasks=tasks, scenario={"column": "page", "values": ["a", "b"]})
    cells = Cells.empty(dataset)
    column = pa.array(labels, pa.float32())
    batch = pa.record_batch({"label/kind": column, "label/click": column})
    cells.add(batch, np.array(scenario))
    return cells


def test_classes_are_counted_by_scenario_and_added_up() -> None:
    cells = _cells([0, 2, 2, np.nan, 1], [0, 1, 1, 1, 2])
    assert set(cells.classes) == {"kind"}
    expected = [[1, 0, 0], [0, 0, 2], [0, 1, 0]]
    np.testing.assert_array_equal(cells.classes["kind"], expected)
    cells.merge(_cells([1, 1], [0, 0]))
    expected[0][1] += 2
    np.testing.assert_array_equal(cells.classes["kind"], expected)
    np.testing.assert_array_equal(cells.labelled["kind"], np.sum(expected, axis=1))
