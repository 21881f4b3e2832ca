"""The model card says what each served number is."""

from __future__ import annotations

import pathlib
from typing import Any

import pytest

from tfmtl.schema.calibration import (
    Calibration,
    Calibrator,
    CellCalibration,
    OutputCalibration,
)
from tfmtl.schema.manifest import DatasetManifest
from tfmtl.testing.tiny import tiny_dataset, tiny_spec
from tfmtl.workflow.evaluate import level_of
from tfmtl.workflow.export import meanings

BPR = {"name": "bpr", "within": "batch"}


def manifest_of(folder: pathlib.Path, tasks: Any, **changes: Any) -> DatasetManifest:
    made = tiny_dataset(folder, {"train": 8})
    return made.model_copy(update={"dataset": tiny_spec(tasks=tasks, **changes)})


def calibrated(**biases: float | None) -> Calibration:
    """A bias of each output; None for a product of steps."""

    def output(bias: float | None) -> OutputCalibration:
        cell = CellCalibration(
            source="task", rows=9, positives=3, calibrator=Calibrator(y=(bias or 0.0,))
        )
        return OutputCalibration(product=bias is None, all=cell)

    return Calibration(
        method="bias",
        by="task",
        min_positives=1,
        min_negatives=1,
        step=1,
        outputs={n.replace("_", "|"): output(b) for n, b in biases.items()},
    )


def tasks(click: Any, buy: Any = "bce") -> list[dict[str, Any]]:
    return [
        {"name": "click", "label": "click", "loss": click},
        {"name": "buy", "label": "buy", "given": "click", "loss": buy},
    ]


@pytest.mark.parametrize(
    ("loss", "why"),
    [("focal", "weighs easy rows down"), (BPR, "orders rows alone")],
)
def test_a_calibrator_mends_what_a_loss_bends(
    tmp_path: pathlib.Path, loss: Any, why: str
) -> None:
    manifest = manifest_of(tmp_path, tasks(loss))
    bent = meanings(manifest, None)
    name = loss if isinstance(loss, str) else "bpr"
    reservation = f", not calibrated: `loss: {name}` {why}"
    assert bent["click"] == f"probability of click{reservation}"
    assert bent["buy|click"] == "probability of buy given click"
    # A product is worth what its steps are.
    assert bent["buy"] == f"probability of buy{reservation}"
    mended = meanings(manifest, calibrated(click=-1.0, buy_click=0.0, buy=None))
    assert mended == {
        "click": "probability of click",
        "buy|click": "probability of buy given click",
        "buy": "probability of buy",
    }
    # Too few positives: the calibrator changes nothing, and so does the card.
    assert meanings(manifest, calibrated(click=0.0, buy_click=-1.0, buy=None)) == bent


def test_sampled_rates_are_told(tmp_path: pathlib.Path) -> None:
    def manifest(correction: str) -> DatasetManifest:
        section = {"keep": ["click"], "rate": 0.1, "correction": correction}
        return manifest_of(tmp_path / correction, tasks("bce"), sampling=section)

    said = ", of sampled rows, not of real traffic (`correction: none`)"
    plain = meanings(manifest("export"), None)
    assert not any("sampled" in text for text in plain.values())
    none = manifest("none")
    assert meanings(none, None) == {
        "click": plain["click"] + said,
        "buy|click": plain["buy|click"],  # its rows were all kept
        "buy": plain["buy"] + said,
    }
    fitted = calibrated(click=-2.0, buy_click=0.0, buy=None)
    assert meanings(none, fitted) == plain
    # Of the same three, the note of an evaluation on the sampled split.
    assert "is corrected for that" in level_of(manifest("weights"), None)
    assert "is corrected for that" in level_of(none, fitted)
    assert "is not corrected for that (`sampling.correction: none`)" in level_of(
        none, None
    )
    empty = calibrated().model_copy(update={"method": "none"})
    assert "is not corrected" in level_of(none, empty)
