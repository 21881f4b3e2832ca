"""Whether two runs, or two data sets, are the same bit for bit."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import numpy as np

from tests.unit.pipeline.records import frozen, read_blocks
from tfmtl._keras import tf
from tfmtl.schema.manifest import read_dataset

TIMING = ("rows_per_second",)
"""What a line of `metrics.jsonl` says about the machine and not about the model."""


def events(run: pathlib.Path) -> list[dict[str, Any]]:
    """The lines of `metrics.jsonl` without timings."""
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [
        {k: v for k, v in json.loads(line).items() if k not in TIMING} for line in lines
    ]


def steps_once(run: pathlib.Path) -> bool:
    """Whether each training line follows on the one before and no event is twice."""
    found = events(run)
    training = [e for e in found if e["kind"] == "train"]
    reached = np.cumsum([e["steps"] for e in training]).tolist()
    keys = [(e["kind"], e["step"]) for e in found]
    return reached == [e["step"] for e in training] and len(set(keys)) == len(keys)


def variables(checkpoint: pathlib.Path) -> dict[str, bytes]:
    """Name to bytes of every variable of a checkpoint."""
    reader = tf.train.load_checkpoint(str(checkpoint))
    names = reader.get_variable_to_shape_map()
    return {
        n: np.asarray(reader.get_tensor(n)).tobytes()
        for n in sorted(names)
        if n != "_CHECKPOINTABLE_OBJECT_GRAPH"
    }


def different_weights(left: pathlib.Path, right: pathlib.Path) -> list[str]:
    """Variables, in the last and the best checkpoint, that differ by any bit.

    The folders must hold the same checkpoints, else their names are the difference.
    """
    folders = sorted(p.name for p in _checkpoints(left))
    others = sorted(p.name for p in _checkpoints(right))
    if folders != others:
        return [f"{folders} and {others}"]
    differ = []
    for name in folders:
        kind = "state" if name.startswith("step-") else "model"
        one = variables(left / "checkpoints" / name / kind)
        two = variables(right / "checkpoints" / name / kind)
        assert one and two
        differ += [
            f"{name}: {n}" for n in one.keys() | two.keys() if one.get(n) != two.get(n)
        ]
    return differ


def _checkpoints(run: pathlib.Path) -> list[pathlib.Path]:
    return [p for p in (run / "checkpoints").iterdir() if not p.name.startswith(".")]


def rows_of(dataset: pathlib.Path) -> dict[str, list[str]]:
    """Split to the multiset of its rows, every column included."""
    manifest = read_dataset(dataset)
    return {s: frozen(read_blocks(dataset, manifest, s)) for s in manifest.splits}
