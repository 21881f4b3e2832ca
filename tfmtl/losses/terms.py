"""A task's loss by name: what it adds up over a batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from tfmtl._keras import tf
from tfmtl.losses import joint, listwise, ordinal, pairwise, pointwise, value
from tfmtl.losses.groups import Context, members
from tfmtl.losses.sums import Sums, over_rows
from tfmtl.schema import loss as names
from tfmtl.schema.loss import LossSpec, default_loss
from tfmtl.schema.task import TaskSpec


class Rows(NamedTuple):
    """What a loss reads.

    Attributes:
        task: The task.
        outputs: [B] or [B, width]; 0 outside the population.
        labels: [B], as they are fitted; 0 outside the population.
        mask: [B] bool, the population.
        weights: [B]; 0 outside the population.
        context: Of the batch.
    """

    task: TaskSpec
    outputs: Any
    labels: Any
    mask: Any
    weights: Any
    context: Context

    def members(self, within: str) -> Any:
        """Numbers that are equal for the rows that are compared, [B]."""
        return members(self.context, within, tf.shape(self.labels)[0])


class Term(NamedTuple):
    """A part of a task's loss.

    Attributes:
        factor: What it is multiplied by.
        sums: Of the batch.
    """

    factor: float
    sums: Sums


def terms(loss: LossSpec, rows: Rows) -> list[Term]:
    """The parts of a loss over a batch, the first one its own."""
    name = loss.name
    if name in _OF_ROWS:
        found = _OF_ROWS[name](loss, rows)
        return [Term(1.0, over_rows(found, rows.mask, rows.weights))]
    parts = [Term(1.0, _OF_ORDERS[name](loss, rows))]
    factor: float = getattr(loss, "pointwise", 0.0)
    if factor:
        (own,) = terms(default_loss(rows.task.type), rows)
        parts.append(Term(factor, own.sums))
    return parts


def _distill(loss: names.Distill, rows: Rows) -> Any:
    teacher = rows.context.teachers.get(rows.task.name)
    if teacher is None:
        raise ValueError(
            f"task {rows.task.name!r}: `loss: distill` needs the teacher's column in "
            f"the batch. Received: those of {sorted(rows.context.teachers)}"
        )
    if loss.form == "probability":
        teacher = pointwise.probability_to_logit(teacher)
    return pointwise.distillation(
        rows.outputs, rows.labels, teacher, loss.temperature, loss.mix
    )


def _jrc(loss: names.JRC, rows: Rows) -> Any:
    there = rows.mask & (rows.weights > 0)
    return joint.jrc(
        rows.outputs, rows.labels, rows.members(loss.within), there, loss.alpha
    )


def _bpr(loss: names.BPR, rows: Rows) -> Sums:
    return pairwise.bpr(
        rows.outputs,
        rows.labels,
        rows.weights,
        rows.members(loss.within),
        gap=loss.gap,
    )


def _list(loss: names.ListSoftmax | names.ListNet | names.ListMLE, rows: Rows) -> Sums:
    lists = listwise.as_lists(rows.members(loss.within), rows.weights > 0)
    scores, relevance = lists.of(rows.outputs), lists.of(rows.labels)
    used = listwise.has_order(relevance, lists.mask)
    if isinstance(loss, names.ListNet):
        found = listwise.listnet(scores, relevance, lists.mask, loss.temperature)
    elif isinstance(loss, names.ListMLE):
        ties = lists.of(listwise.drawn_ties(tf.shape(rows.labels)[0]))
        found = listwise.listmle(scores, relevance, lists.mask, ties)
    else:
        found = listwise.softmax_of_lists(scores, relevance, lists.mask)
        used = listwise.has_positive(relevance, lists.mask)
    return listwise.over_lists(found, used, lists.of(rows.weights), lists.mask)


_OF_ROWS: dict[str, Callable[[Any, Rows], Any]] = {
    "bce": lambda loss, r: pointwise.binary_cross_entropy(
        r.outputs, r.labels, loss.smoothing
    ),
    "focal": lambda loss, r: pointwise.focal(
        r.outputs, r.labels, loss.gamma, loss.alpha
    ),
    "l2r": lambda loss, r: pointwise.signed_logistic(r.outputs, r.labels),
    "distill": _distill,
    "jrc": _jrc,
    "mse": lambda loss, r: pointwise.squared_error(r.outputs, r.labels),
    "huber": lambda loss, r: pointwise.huber(r.outputs, r.labels, loss.delta),
    "weighted_logistic": lambda loss, r: pointwise.weighted_logistic(
        r.outputs, r.labels, loss.negatives
    ),
    "ziln": lambda loss, r: value.zero_inflated_lognormal(r.outputs, r.labels),
    "softmax": lambda loss, r: pointwise.softmax_cross_entropy(
        r.outputs, r.labels, loss.smoothing
    ),
    "ordinal": lambda loss, r: ordinal.ordinal_cross_entropy(r.outputs, r.labels),
}
_OF_ORDERS: dict[str, Callable[[Any, Rows], Sums]] = {
    "bpr": _bpr,
    "list_softmax": _list,
    "listnet": _list,
    "listmle": _list,
}
