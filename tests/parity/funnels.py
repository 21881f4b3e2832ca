"""What the references of funnel architectures share: products, losses and tasks."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.parity.reference import Truth, features, sigmoid
from tfmtl._keras import tf
from tfmtl.losses import TaskLosses

CHAIN = [
    {"name": "click", "label": "click"},
    {"name": "like", "label": "like", "given": "click"},
    {"name": "buy", "label": "buy", "given": "like"},
]
"""click -> like -> buy."""

FORK = [CHAIN[0], CHAIN[1], {"name": "buy", "label": "buy", "given": "click"}]
"""click -> like and click -> buy."""


def log_odds(p: np.ndarray) -> np.ndarray:
    return np.log(p) - np.log1p(-p)


def product(*logits: np.ndarray) -> np.ndarray:
    """Log-odds of the product of probabilities, in float64."""
    return log_odds(np.prod([sigmoid(np.float64(s)) for s in logits], axis=0))


def probabilities(model: Any) -> Truth:
    return {k: sigmoid(np.float64(v)) for k, v in model(features()).items()}


def cross_entropy(labels: np.ndarray, p: np.ndarray) -> float:
    return float(-(labels * np.log(p) + (1 - labels) * np.log1p(-p)).mean())


def labels(*columns: np.ndarray) -> Any:
    """[50, T] float32."""
    return tf.constant(np.stack(columns, axis=1), tf.float32)


def losses(model: Any, logits: Any, truth: Any) -> np.ndarray:
    """The losses that training takes, one a task."""
    computed = TaskLosses(
        model.tasks, {t.name: model.trained_output(t) for t in model.tasks}
    )
    found, _ = computed(
        logits, truth, tf.ones_like(truth, tf.bool), tf.ones_like(truth)
    )
    return found


def random_funnel(steps: int, seed: int = 0) -> list[np.ndarray]:
    """Labels of 50 rows, each at most the one before."""
    draw = np.random.default_rng(seed)
    found = [np.ones(50)]
    for _ in range(steps):
        found.append(found[-1] * (draw.random(50) < 0.6))
    return found[1:]


def reaches(value: Any, tape: Any, sources: Any) -> list[bool]:
    """Whether a scalar's gradient with respect to each source is not 0."""
    gradients = tape.gradient(value, sources)
    return [
        g is not None and bool(np.any(tf.convert_to_tensor(g) != 0)) for g in gradients
    ]
