"""What is done to the logits of a trained model before anybody reads them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tfmtl.calibration.sampling import SamplingCorrection, scenario_ids
from tfmtl.calibration.table import CalibratorTable
from tfmtl.layers.funnel import joint_logit
from tfmtl.losses.units import to_logit
from tfmtl.schema.calibration import Calibration
from tfmtl.schema.funnel import steps_of
from tfmtl.schema.manifest import DatasetManifest
from tfmtl.schema.task import outputs_of


class Finish:
    """Corrects sampling, then calibrates; the identity where neither is asked for.

    Evaluation, scoring and the exported graph all go through here, so that they agree.

    Args:
        manifest: Of the model's data set.
        calibration: The calibrators of the run.
    """

    def __init__(
        self, manifest: DatasetManifest, calibration: Calibration | None = None
    ) -> None:
        correction = SamplingCorrection.of(manifest)
        served = correction is not None and correction.kind == "export"
        self._correction = correction if served else None
        self._binary = {
            n: t
            for n, t in outputs_of(manifest.dataset.tasks).items()
            if t.type == "binary"
        }
        self._tables: dict[str, CalibratorTable] = {}
        self._products: dict[str, list[str]] = {}
        outputs = calibration.outputs if calibration else {}
        for name, found in outputs.items():
            calibrators = found.calibrators()
            if not found.product and not all(c.is_identity for c in calibrators):
                self._tables[name] = CalibratorTable(calibrators)
        for name in (n for n, found in outputs.items() if found.product):
            steps = [t.conditional for t in steps_of(manifest.dataset.tasks, name)]
            # Without a calibrator the product is what the model says.
            if any(s in self._tables for s in steps):
                self._products[name] = steps

    def __call__(
        self, outputs: Mapping[str, Any], features: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Logits of a model -> logits at the rates of real traffic.

        Args:
            outputs: Output to [B] or [B, C].
            features: Of the same rows; `scenario` among them where there are any.
        """
        result = dict(outputs)
        if not (self._correction or self._tables):
            return result
        for name, task in self._binary.items():
            result[name] = to_logit(task, outputs[name])
        scenario = scenario_ids(features, next(iter(outputs.values())))
        if self._correction is not None:
            away = self._correction.log_rates(scenario)
            result = self._correction.moved(result, away)
        for name, table in self._tables.items():
            result[name] = table(result[name], scenario)
        for name, steps in self._products.items():
            result[name] = joint_logit(*(result[s] for s in steps))
        return result
