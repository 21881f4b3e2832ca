"""The forms of a fused score on arrays: score = sum_t w_t term_t(y_t).

In each form (of the products: in the logarithm, which orders rows alike) the score is
linear in the weights: a term depends on its own output alone. So the terms are computed
once, and another set of weights costs one matrix product.

Sources: H. Tang et al., "Progressive Layered Extraction", RecSys 2020, and Z. Zhao et
al., "Recommending what video to watch next", RecSys 2019 (products of powers of the
tasks' outputs); G. Cormack et al., "Reciprocal rank fusion outperforms Condorcet and
individual rank learning methods", SIGIR 2009 (1 / (rank + 60)).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from tfmtl.errors import ConfigError
from tfmtl.metrics.arrays import Floats, group_codes, tie_runs, vector
from tfmtl.schema.fusion import FusionSpec

EXPONENT_LIMIT = 60.0
"""Exponents of `exponential_sum` are cut here: exp(60), and sums of such, are finite in
32 bits. Probabilities with a beta below 60 never get there."""


def fuse(
    predictions: Mapping[str, npt.ArrayLike],
    spec: FusionSpec,
    groups: npt.ArrayLike | None = None,
) -> Floats:
    """The fused score of each row.

    Args:
        predictions: Output to [N], in the unit of its label: probabilities of binary
            tasks, expected values of regressions.
        spec: The form and the weights; outputs it does not name are not read.
        groups: [N] the list of each row, which `form: rank` ranks in. None: all rows
            are one list, as in one request to a served model.

    Returns:
        [N]; of the products the logarithm of the product.

    Raises:
        ConfigError: An output is missing.
        DataError: Predictions are NaN or of unequal length.
    """
    weights = np.array([spec.weights[name] for name in spec.used])
    return weigh(terms(predictions, spec, groups), weights)


def weigh(columns: Floats, weights: Floats) -> Floats:
    """The score [N] of terms [U, N] under weights [U].

    Not a matrix product: BLAS rounds the rows of a block and those of its rest
    differently, so that rows which tie would not.
    """
    total: Floats = weights[0] * columns[0]
    for weight, column in zip(weights[1:], columns[1:]):
        total += weight * column
    return total


def terms(
    predictions: Mapping[str, npt.ArrayLike],
    spec: FusionSpec,
    groups: npt.ArrayLike | None = None,
) -> Floats:
    """What the weights are multiplied with; arguments and errors as `fuse`.

    Returns:
        [U, N], a row for each of `spec.used`; it does not depend on the weights.
    """
    missing = sorted(set(spec.used) - set(predictions))
    if missing:
        raise ConfigError(
            f"`fusion.weights` names {missing}, of which there are no predictions; "
            f"there are: {sorted(predictions)}"
        )
    rows = np.shape(predictions[spec.used[0]])[0]
    columns = [
        _term(vector(name, predictions[name], rows), name, spec, groups)
        for name in spec.used
    ]
    return np.stack(columns)


def _term(
    value: Floats, name: str, spec: FusionSpec, groups: npt.ArrayLike | None
) -> Floats:
    if spec.transform.get(name) == "log1p":
        value = np.log1p(np.maximum(value, 0.0))
    beta = spec.beta.get(name, 1.0)
    match spec.form:
        case "product":
            return np.log(np.maximum(value, spec.floor))
        case "sum":
            return value
        case "shifted_product":
            return np.log(np.maximum(1.0 + beta * value, spec.floor))
        case "exponential_sum":
            return np.exp(np.minimum(beta * value, EXPONENT_LIMIT))
        case "exponential_product":
            return beta * value
        case "rank":
            return 1.0 / (_ranks(value, groups) + spec.offset)


def _ranks(value: Floats, groups: npt.ArrayLike | None) -> Floats:
    """Rank of each row in its list [N], 1 the greatest; tied rows share their mean."""
    if groups is None:
        code = np.zeros(len(value), dtype=np.int64)
    else:
        code, _ = group_codes(groups)
    order = np.lexsort((-value, code))
    _, start = tie_runs(code[order], value[order])
    _, begin = tie_runs(code[order])
    size = np.diff(start, append=len(value))
    list_begin = begin[np.searchsorted(begin, start, side="right") - 1]
    ranks = np.empty(len(value))
    ranks[order] = np.repeat(start - list_begin + 0.5 * (size + 1), size)
    return ranks
