"""Probabilities that are too high or low, and fits that do not carry over."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tfmtl.report.finding import Finding

OFF = 0.1
"""Distance of predicted over observed positives from 1 that counts."""
ECE = 0.1
"""Expected calibration error, relative to the positive rate, that counts."""
RISE = 0.02
"""Relative rise of the validation loss above its least that counts."""
_BINS = 100


def miscalibrated(task: str, facts: Mapping[str, Any]) -> Iterator[Finding]:
    """A binary output whose probabilities are off by more than chance.

    PCOC (predicted over observed positives) has a relative error of about
    1 / sqrt(positives), the calibration error of a perfect model in n rows and 100 bins
    one of about sqrt(2 / pi) sqrt(p (1 - p) 100 / n): what is within two of them is no
    finding.

    Args:
        task: The output.
        facts: Its `rows`, `positives`, `pcoc` and `ece`, of `tfmtl evaluate`.
    """
    rows, positives = facts["rows"], facts["positives"]
    if not rows or not 0 < positives < rows:
        return
    rate, pcoc, ece = positives / rows, facts.get("pcoc"), facts.get("ece")
    noise = 2 / math.sqrt(positives)
    if pcoc is not None and abs(pcoc - 1) > max(OFF, noise):
        yield Finding(
            "miscalibrated",
            task,
            pcoc,
            1 + math.copysign(max(OFF, noise), pcoc - 1),
            f"{task} predicts {pcoc:.3f} times as many positives as there are (outside "
            f"[{1 - OFF:.1f}, {1 + OFF:.1f}]; {positives:,} positives)",
            "calibrate it (`tfmtl calibrate`), train longer, or look whether the rate "
            "drifts between the splits (`tfmtl data describe`)",
        )
    noise = 2 * math.sqrt(2 / math.pi * rate * (1 - rate) * _BINS / rows)
    limit = max(ECE * rate, noise)
    if ece is not None and ece > limit:
        yield Finding(
            "miscalibrated",
            task,
            ece,
            limit,
            f"{task} is off by {ece:.4f} in the mean over bins of equal score (more "
            f"than {limit:.4f}; its rate is {rate:.4f})",
            "calibrate it (`tfmtl calibrate`), or regularise: probabilities too far "
            "out come from an overfit",
        )


def overfitting(
    task: str, losses: Sequence[tuple[float | None, float]], what: str
) -> Iterator[Finding]:
    """A task whose validation loss rises while its training loss goes on falling.

    Args:
        task: The task.
        losses: Training loss before, and validation loss at, each evaluation.
        what: Name of the validation loss.
    """
    if len(losses) < 2:
        return
    at = min(range(len(losses)), key=lambda i: losses[i][1])
    (train_then, least), (train_now, now) = losses[at], losses[-1]
    if not least > 0 or train_then is None or train_now is None:
        return
    rise = now / least - 1
    if rise > RISE and train_now < train_then:
        yield Finding(
            "overfitting",
            task,
            rise,
            RISE,
            f"{task} overfits: since its best evaluation the training loss fell from "
            f"{train_then:.4f} to {train_now:.4f} while {what} on validation rose from "
            f"{least:.4f} to {now:.4f}, by {rise:.1%} (more than {RISE:.0%})",
            "give `regularization.embedding_l2`, `id_dropout` or `dropout`, evaluate "
            f"more often, or stop it early (`training.tasks.{task}.patience`)",
        )
