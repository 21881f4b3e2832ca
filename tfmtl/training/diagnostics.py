"""What the tasks do to each other: gradients, gates and experts on one batch.

One more forward pass and one backward pass for each task, in a graph of its own, with
moving statistics frozen: it reads the model and changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from tfmtl._keras import tf
from tfmtl.balance.gram import gram_matrix
from tfmtl.layers.statistics import frozen_statistics
from tfmtl.training.gradients import differentiate
from tfmtl.training.trainer import Trainer, forward

_Array = npt.NDArray[np.float64]


class Diagnostics:
    """Measures a model in training.

    Args:
        trainer: Model, losses and what the tasks share.
    """

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        self.names = [t.name for t in trainer.model.tasks]
        self._measure_next = tf.function(self._measure, autograph=False)

    def __call__(self, batches: Any, weights: Any = None) -> dict[str, Any]:
        """Measures the next batch.

        Args:
            batches: Iterator of a data set of batches.
            weights: [T], the balancer's of late; 1 where None.

        Returns:
            `weights`; `groups`: of `shared` and `embedding`, see `gradient_facts`;
            `gates`: name to gate to `gate_facts`; `experts`: name to `expert_facts`.
        """
        found = tf.nest.map_structure(lambda x: x.numpy(), self._measure_next(batches))
        count = len(self.names)
        weighed = np.ones(count) if weights is None else np.asarray(weights, float)
        reaching = weighed * self._limits(found["grams"])
        return {
            "weights": dict(zip(self.names, weighed.tolist())),
            "groups": {
                name: gradient_facts(self.names, gram, reaching, found["present"])
                for name, gram in found["grams"].items()
            },
            "gates": {
                name: self._gates(name, *values)
                for name, values in found["gates"].items()
            },
            "experts": {
                name: expert_facts(*values) for name, values in found["experts"].items()
            },
        }

    def _limits(self, grams: Mapping[str, _Array]) -> _Array:
        """[T], what is left of the tasks' gradients under `training.tasks`."""
        left = np.ones(len(self.names))
        norms = np.sqrt(np.diag(sum(grams.values(), np.zeros([len(left)] * 2))))
        for t, limit in enumerate(self.trainer.control.clip_norms):
            if limit is not None:
                left[t] = limit / max(norms[t], limit)
        left[self.trainer.control.apart] = 0.0
        return left

    def _gates(self, name: str, means: _Array, entropies: _Array) -> dict[str, Any]:
        count = len(self.names)
        labels = [str(i) for i in range(len(means))]
        if len(means) == 1:
            labels = ["all"]
        # Other gates belong to scenarios, of which there may be as many as tasks.
        of_tasks = name == "gates" or name.startswith("level_")
        if of_tasks and len(means) in (count, count + 1) and count > 1:
            labels = [*self.names, "shared"][: len(means)]
        rows = zip(labels, means, entropies)
        return {label: gate_facts(m, float(e)) for label, m, e in rows}

    def _measure(self, batches: Any) -> dict[str, Any]:
        batch = next(batches)
        model, control = self.trainer.model, self.trainer.control
        with frozen_statistics():
            losses, present, _ = forward(model, self.trainer.losses, batch)
        losses, present = control.masked(losses, present, model.step)
        per_task = tf.unstack(losses)
        groups = self.trainer.variables_shared.by_kind()
        variables = [v for members in groups.values() for v in members]
        passes = [differentiate([loss], variables) for loss in per_task]
        by_variable = list(zip(*passes))
        grams, first = {}, 0
        for name, members in groups.items():
            grams[name] = gram_matrix(by_variable[first : first + len(members)])
            first += len(members)
        seen = model.inspect()
        return {
            "present": present,
            "grams": grams,
            "gates": {
                k: _gate_moments(v)
                for k, v in seen.items()
                if k.endswith("gates") and v.shape[-1] > 1
            },
            "experts": {
                k: _expert_moments(v)
                for k, v in seen.items()
                if k.endswith("experts") and v.shape[-2] is not None
            },
        }


def _gate_moments(gates: Any) -> tuple[Any, Any]:
    """[B, ..., E] -> means [R, E] and mean entropies [R] of the R gates, in nats."""
    gates = tf.cast(gates, tf.float64)
    gates = tf.reshape(gates, [tf.shape(gates)[0], -1, gates.shape[-1]])  # [B, R, E]
    entropy = -tf.reduce_sum(tf.math.xlogy(gates, gates), axis=-1)
    return tf.reduce_mean(gates, axis=0), tf.reduce_mean(entropy, axis=0)


def _expert_moments(experts: Any) -> tuple[Any, Any]:
    """[B, ..., E, H] -> share of units that never act [E], and the inner products of
    the experts' outputs, each unit's mean over the batch taken off, [E, E]."""
    experts = tf.cast(experts, tf.float32)
    count, units = experts.shape[-2:]
    experts = tf.reshape(experts, [-1, count, units])  # [N, E, H]
    idle = tf.reduce_max(tf.abs(experts), axis=0) <= 0.0
    centred = experts - tf.reduce_mean(experts, axis=0)
    flat = tf.reshape(tf.transpose(centred, [1, 0, 2]), [count, -1])
    return (
        tf.reduce_mean(tf.cast(idle, tf.float64), axis=-1),
        tf.cast(tf.matmul(flat, flat, transpose_b=True), tf.float64),
    )


def gradient_facts(
    names: list[str], gram: _Array, weights: _Array, present: npt.NDArray[np.bool_]
) -> dict[str, Any]:
    """What a Gram matrix of the tasks' gradients says.

    With g = sum_t w_t g_t: `norm` |g_t|; `cosine` of each pair, task to later task;
    `share` <w_t g_t, g> / |g|^2, which sum to 1 and may be negative; `norm_share`
    w_t |g_t| / sum_s w_s |g_s|. A task that is absent has none of them.

    Args:
        names: Of the T tasks.
        gram: [T, T].
        weights: [T], 0 for tasks whose gradient does not get there.
        present: [T].
    """
    norms = np.sqrt(np.maximum(np.diag(gram), 0.0))
    here = [t for t in range(len(names)) if present[t]]
    alive = [t for t in here if norms[t] > 0]
    used = np.where(present, weights, 0.0)
    total = float(used @ gram @ used)
    pulls = used * (gram @ used)
    sizes = np.abs(used) * norms
    cosines: dict[str, dict[str, float]] = {}
    for i, t in enumerate(alive):
        for s in alive[i + 1 :]:
            value = float(gram[t, s] / (norms[t] * norms[s]))
            cosines.setdefault(names[t], {})[names[s]] = value
    return {
        "norm": {names[t]: float(norms[t]) for t in here},
        "cosine": cosines,
        "share": {names[t]: float(pulls[t] / total) for t in here if total > 0},
        "norm_share": {
            names[t]: float(sizes[t] / sizes.sum()) for t in here if sizes.sum() > 0
        },
    }


def gate_facts(mean: _Array, entropy: float) -> dict[str, Any]:
    """What one gate does with its experts.

    Args:
        mean: [E] weights, over rows; 0 for an expert that the gate does not see.
        entropy: Of a row's weights, mean over rows, in nats.

    Returns:
        `mean`; `entropy` as a share of that of equal weights; `largest`, the mean
        weight of the expert with most.
    """
    seen = int((mean > 0).sum())
    return {
        "mean": [float(m) for m in mean],
        "entropy": float(entropy / np.log(max(seen, 2))),
        "largest": float(mean.max()),
    }


def expert_facts(idle: _Array, products: _Array) -> dict[str, Any]:
    """Which experts do nothing, and which two are nearest to each other.

    Args:
        idle: [E], share of each expert's units that are 0 on every row.
        products: [E, E] inner products of centred outputs.

    Returns:
        `idle`; `correlation`, the highest of two experts' outputs, and `nearest`, those
        two; None where fewer than two vary.
    """
    norms = np.sqrt(np.maximum(np.diag(products), 0.0))
    nearest, highest = None, None
    for i in range(len(norms)):
        for j in range(i):
            if norms[i] > 0 and norms[j] > 0:
                value = float(products[i, j] / (norms[i] * norms[j]))
                if highest is None or value > highest:
                    nearest, highest = [j, i], value
    return {
        "idle": [float(x) for x in idle],
        "correlation": highest,
        "nearest": nearest,
    }


def write_scalars(found: Mapping[str, Any]) -> None:
    """Writes diagnostics to TensorBoard's default writer."""
    for group, facts in found["groups"].items():
        for what in ("norm", "share"):
            for task, value in facts[what].items():
                tf.summary.scalar(f"gradients/{group}/{what}/{task}", value)
        for task, others in facts["cosine"].items():
            for other, value in others.items():
                tf.summary.scalar(f"gradients/{group}/cosine/{task}_{other}", value)
    for task, weight in found["weights"].items():
        tf.summary.scalar(f"weights/{task}", weight)
    for name, gates in found["gates"].items():
        for gate, facts in gates.items():
            tf.summary.scalar(f"{name}/{gate}/entropy", facts["entropy"])
            tf.summary.scalar(f"{name}/{gate}/largest", facts["largest"])
