"""From a model's logits to the rates of real traffic.

`sampling` undoes negative down-sampling, `fit` and `cells` fit calibrators after
training, `table` applies them in TensorFlow, `finish` is both in the order in which
every reader of the model (evaluation, scoring, export) applies them.
"""

from __future__ import annotations

from tfmtl.calibration.finish import Finish
from tfmtl.calibration.sampling import SamplingCorrection, correct_batch

__all__ = ["Finish", "SamplingCorrection", "correct_batch"]
