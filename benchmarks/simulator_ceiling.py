"""How much of a simulated log's attainable gap its own functional form reaches.

    python -m benchmarks.simulator_ceiling DIR

`DIR` is what `tfmtl data simulate` wrote. The click model of the generator is fitted to
the observable columns of the first 80 % of the log by penalised maximum likelihood:

    logit = a_s + b_user + b_item + <u, M_s v> + price_s, freshness_s, quality, follow
        + position + hour
    u = user features @ W + residual of the user id,  v likewise for the item

It sees no truth: neither latent vectors nor angles nor variances. The strength of the
penalty is chosen on the next 10 % (by log-loss, with early stopping), the AUC is told
on the last 10 %. Beside it stand the true probabilities' AUC on the same rows, and that
of smoothed means of user, item and scenario. The share of the attainable gap is
(AUC - 0.5) / (Bayes AUC - 0.5).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import pathlib
import time

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from scipy import optimize, sparse

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

SCENARIOS = ("feed", "search", "live")
WIDTH = 8
PENALTIES = (2.0, 1.0, 0.5, 0.25)
"""Tried from strong to weak, each from the one before, while the log-loss falls."""
SMOOTHING = (5.0, 20.0, 80.0)

_COLUMNS = [
    "timestamp", "scenario", "position", "user_id", "item_id", "user_age_group",
    "user_gender", "user_city", "user_device", "user_interests", "user_activity",
    "item_category", "item_creator", "item_price", "item_quality", "item_age_days",
    "item_content", "follows_creator", "click",
]  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Rows:
    """The log as indices and design matrices; n rows, U users, I items that occur."""

    user: Ints
    item: Ints
    scenario: Ints
    click: Floats
    truth: Doubles
    context: sparse.csr_matrix
    """`[n, P]`: terms that act on the logit alone."""
    user_features: sparse.csr_matrix
    item_features: sparse.csr_matrix
    train: slice
    validation: slice
    test: slice


def auc(score: npt.NDArray[np.floating], label: npt.NDArray[np.floating]) -> float:
    """Exact AUC with mid-ranks; `[n]` scores and 0/1 labels."""
    _, place, count = np.unique(score, return_inverse=True, return_counts=True)
    rank = (np.cumsum(count) - 0.5 * (count - 1))[place]
    positives = float(label.sum())
    negatives = len(label) - positives
    above = float(rank @ label) - 0.5 * positives * (positives + 1.0)
    return above / (positives * negatives)


def encode(column: pa.ChunkedArray) -> tuple[Ints, int]:
    """Codes from 0, null being a value of its own, and how many there are."""
    encoded = column.combine_chunks().dictionary_encode(null_encoding="encode")
    codes = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    return codes, len(encoded.dictionary)


def one_hot(code: Ints, count: int) -> sparse.csr_matrix:
    """`[n, count]` indicator matrix."""
    shape = (len(code), count)
    ones = np.ones(len(code), np.float32)
    return sparse.csr_matrix((ones, code, np.arange(len(code) + 1)), shape)


def numeric(column: pa.ChunkedArray) -> Floats:
    """`[n, 2]`: standardised value (0 where null) and the indicator of null."""
    value = column.to_numpy().astype(np.float64)
    missing = np.isnan(value)
    value = (value - np.nanmean(value)) / max(float(np.nanstd(value)), 1e-9)
    return np.stack([np.where(missing, 0.0, value), missing], 1).astype(np.float32)


def entity_features(
    table: pa.Table, key: str, names: list[str], ragged: str
) -> tuple[Ints, sparse.csr_matrix]:
    """Codes `[n]` of `key` and the features `[E, P]` of each entity.

    `ragged` is a list column: of strings (a mean over their indicators) or of floats
    (taken as they are).
    """
    code, count = encode(table[key])
    first = np.full(count, -1, np.int64)
    first[code[::-1]] = np.arange(len(code))[::-1]
    entities = table.select([*names, ragged]).take(pa.array(first))
    blocks = [one_hot(*encode(entities[name])) for name in names]
    lists = entities[ragged].combine_chunks()
    length = pc.list_value_length(lists).to_numpy(zero_copy_only=False)
    values = lists.flatten()
    if pa.types.is_floating(values.type):
        dense = values.to_numpy().reshape(count, -1)
        blocks.append(sparse.csr_matrix(dense.astype(np.float32)))
    else:
        topic, topics = encode(pa.chunked_array([values]))
        owner = np.repeat(np.arange(count), length)
        weight = (1.0 / length[owner]).astype(np.float32)
        blocks.append(sparse.csr_matrix((weight, (owner, topic)), (count, topics)))
    return code, sparse.hstack(blocks, format="csr", dtype=np.float32)


def read(directory: pathlib.Path) -> Rows:
    """Reads the log and splits it by time into 80, 10 and 10 %."""
    table = pq.read_table(directory / "logs", columns=_COLUMNS)
    truth = pq.read_table(directory / "truth.parquet", columns=["click"])
    order = {name: index for index, name in enumerate(SCENARIOS)}
    scenario = np.asarray([order[x] for x in table["scenario"].to_pylist()])
    user, user_features = entity_features(
        table,
        "user_id",
        ["user_age_group", "user_gender", "user_city", "user_device"],
        "user_interests",
    )
    item, item_features = entity_features(
        table, "item_id", ["item_category", "item_creator"], "item_content"
    )
    price = numeric(pa.chunked_array([pc.ln(table["item_price"].combine_chunks())]))
    age = numeric(pa.chunked_array([pc.log1p(table["item_age_days"].combine_chunks())]))
    by_scenario = np.concatenate([price, age[:, :1]], axis=1)
    here = np.eye(len(SCENARIOS), dtype=np.float32)[scenario]
    crossed = (by_scenario[:, :, None] * here[:, None, :]).reshape(len(scenario), -1)
    follows = table["follows_creator"].to_numpy().astype(np.float32)[:, None]
    dense = [crossed, numeric(table["item_quality"]), follows]
    timestamp = table["timestamp"].to_numpy()
    context = sparse.hstack(
        [
            one_hot(scenario, len(SCENARIOS)),
            one_hot(timestamp // 3600 % 24, 24),
            one_hot(np.minimum(table["position"].to_numpy(), 19), 20),
            sparse.csr_matrix(np.concatenate(dense, axis=1)),
        ],
        format="csr",
        dtype=np.float32,
    )
    # Cut between requests: rows of one time stay together.
    rows = len(timestamp)
    first, second = (
        int(np.searchsorted(timestamp, timestamp[int(part * rows)]))
        for part in (0.8, 0.9)
    )
    return Rows(
        user=user,
        item=item,
        scenario=scenario,
        click=table["click"].to_numpy().astype(np.float32),
        truth=truth["click"].to_numpy(),
        context=context,
        user_features=user_features,
        item_features=item_features,
        train=slice(0, first),
        validation=slice(first, second),
        test=slice(second, rows),
    )


class ClickModel:
    """The functional form: a flat parameter vector, its penalised loss and gradient.

    Every parameter is scaled so that a unit normal is a sensible prior, which lets one
    strength of penalty serve all.
    """

    BIAS_SCALE = 0.3
    RESIDUAL_SCALE = 0.4
    FEATURE_SCALE = 0.5

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        users, items = rows.user_features, rows.item_features
        scenarios = len(SCENARIOS)
        self._shapes = {
            "context": (rows.context.shape[1],),
            "user_bias": (users.shape[0],),
            "item_bias": (items.shape[0],),
            "user_weight": (users.shape[1], WIDTH),
            "item_weight": (items.shape[1], WIDTH),
            "user_residual": (users.shape[0], WIDTH),
            "item_residual": (items.shape[0], WIDTH),
            "turn": (scenarios, WIDTH, WIDTH),
        }
        self._cell = rows.scenario * items.shape[0] + rows.item
        part = rows.train
        self._user_sum = one_hot(rows.user[part], users.shape[0]).T.tocsr()
        cells = scenarios * items.shape[0]
        self._cell_sum = one_hot(self._cell[part], cells).T.tocsr()
        self._context_sum = rows.context[part].T.tocsr()

    def start(self, seed: int) -> Doubles:
        """A small random start: at zero the product of tastes has no slope."""
        rng = np.random.default_rng(seed)
        size = sum(int(np.prod(shape)) for shape in self._shapes.values())
        return 0.2 * rng.normal(size=size)

    def _split(self, flat: Doubles) -> dict[str, Floats]:
        parts, begin = {}, 0
        for name, shape in self._shapes.items():
            end = begin + int(np.prod(shape))
            parts[name] = flat[begin:end].reshape(shape).astype(np.float32)
            begin = end
        return parts

    def _tables(self, p: dict[str, Floats]) -> tuple[Floats, Floats, Floats, Floats]:
        """Tastes of users `[U, K]` and items `[I, K]`, turns `[S, K, K]`, and the items
        turned for each scenario `[S * I, K]`."""
        rows = self._rows
        user = self.FEATURE_SCALE * (rows.user_features @ p["user_weight"])
        user += self.RESIDUAL_SCALE * p["user_residual"]
        item = self.FEATURE_SCALE * (rows.item_features @ p["item_weight"])
        item += self.RESIDUAL_SCALE * p["item_residual"]
        # The big scenario sets the axes; the others turn away from it.
        turn = np.eye(WIDTH, dtype=np.float32) + 0.5 * p["turn"]
        turn[0] = np.eye(WIDTH)
        turned = np.concatenate([item @ matrix.T for matrix in turn])
        return user, item, turn, turned

    def logit(self, flat: Doubles, part: slice) -> Floats:
        """`[n]` logits of the rows `part`."""
        p, rows = self._split(flat), self._rows
        user, _, _, turned = self._tables(p)
        match = np.einsum("nk,nk->n", user[rows.user[part]], turned[self._cell[part]])
        bias = p["user_bias"][rows.user[part]] + p["item_bias"][rows.item[part]]
        context = rows.context[part] @ p["context"]
        return np.asarray(match + context + self.BIAS_SCALE * bias, np.float32)

    def loss(self, flat: Doubles, penalty: float) -> tuple[float, Doubles]:
        """Penalised mean log-loss of the training rows, and its gradient."""
        p, rows = self._split(flat), self._rows
        part, count = rows.train, rows.train.stop
        user, item, turn, turned = self._tables(p)
        of_user, of_cell = user[rows.user[part]], turned[self._cell[part]]
        bias = p["user_bias"][rows.user[part]] + p["item_bias"][rows.item[part]]
        logit = np.einsum("nk,nk->n", of_user, of_cell) + self.BIAS_SCALE * bias
        logit += rows.context[part] @ p["context"]
        label = rows.click[part]
        total = np.logaddexp(0.0, logit).sum(dtype=np.float64)
        total -= float(logit @ label)
        slope = 1.0 / (1.0 + np.exp(-logit)) - label

        cells = self._cell_sum @ np.column_stack([slope[:, None] * of_user, slope])
        to_turned = cells[:, :WIDTH].reshape(len(SCENARIOS), -1, WIDTH)
        users = self._user_sum @ np.column_stack([slope[:, None] * of_cell, slope])
        to_user = users[:, :WIDTH]
        to_item = np.einsum("sik,skj->ij", to_turned, turn, optimize=True)
        to_turn = 0.5 * np.einsum("sik,ij->skj", to_turned, item, optimize=True)
        to_turn[0] = 0.0
        item_slope = cells[:, WIDTH].reshape(len(SCENARIOS), -1).sum(axis=0)
        gradient = {
            "context": self._context_sum @ slope,
            "user_bias": self.BIAS_SCALE * users[:, WIDTH],
            "item_bias": self.BIAS_SCALE * item_slope,
            "user_weight": self.FEATURE_SCALE * (rows.user_features.T @ to_user),
            "item_weight": self.FEATURE_SCALE * (rows.item_features.T @ to_item),
            "user_residual": self.RESIDUAL_SCALE * to_user,
            "item_residual": self.RESIDUAL_SCALE * to_item,
            "turn": to_turn,
        }
        flat_gradient = np.concatenate([gradient[n].ravel() for n in self._shapes])
        value = (total + 0.5 * penalty * float(flat @ flat)) / count
        return value, (flat_gradient + penalty * flat) / count


def log_loss(logit: Floats, label: Floats) -> float:
    """Mean log-loss of `[n]` logits."""
    return float(np.mean(np.logaddexp(0.0, logit) - logit * label, dtype=np.float64))


class BestSoFar:
    """Callback of the optimiser: keeps the parameters of the lowest validation loss.

    Looks every fifth step and stops when three looks in a row brought nothing.
    """

    def __init__(self, model: ClickModel, rows: Rows, start: Doubles) -> None:
        self.loss, self.flat = np.inf, start
        self._model, self._part = model, rows.validation
        self._label = rows.click[rows.validation]
        self._steps = self._stale = 0

    def __call__(self, now: Doubles) -> None:
        """Looks at the parameters `now`, which the optimiser goes on to change."""
        self._steps += 1
        if self._steps % 5:
            return
        loss = log_loss(self._model.logit(now, self._part), self._label)
        if loss < self.loss - 1e-6:
            self.loss, self.flat, self._stale = loss, now.copy(), 0
            return
        self._stale += 1
        if self._stale == 3:
            raise StopIteration


def fit(rows: Rows, seed: int) -> tuple[Floats, float]:
    """Fits the functional form; returns the test logits and the penalty chosen."""
    model = ClickModel(rows)
    best = BestSoFar(model, rows, model.start(seed))
    chosen = PENALTIES[0]
    for penalty in PENALTIES:
        trial = BestSoFar(model, rows, best.flat)
        optimize.minimize(
            model.loss,
            best.flat,
            args=(penalty,),
            jac=True,
            method="L-BFGS-B",
            callback=trial,
            options={"maxiter": 150, "maxcor": 10},
        )
        if trial.loss >= best.loss:
            break
        best, chosen = trial, penalty
    return model.logit(best.flat, rows.test), chosen


def smoothed_means(rows: Rows) -> Floats:
    """`[n test]`: sum of the log-odds deviations of user, item and scenario means.

    Means of the training rows, smoothed towards the overall rate by a number of rows
    that is chosen on the validation part by log-loss.
    """
    click, rate = rows.click[rows.train], float(rows.click[rows.train].mean())
    base = np.log(rate / (1.0 - rate))

    def score(part: slice, prior: float) -> Floats:
        total = np.full(part.stop - part.start, base)
        for code in (rows.user, rows.item, rows.scenario):
            size = int(code.max()) + 1
            seen = np.bincount(code[rows.train], minlength=size)
            clicks = np.bincount(code[rows.train], click, minlength=size)
            mean = (clicks + prior * rate) / (seen + prior)
            total += (np.log(mean / (1.0 - mean)) - base)[code[part]]
        return np.asarray(total, np.float32)

    label = rows.click[rows.validation]
    prior = min(SMOOTHING, key=lambda m: log_loss(score(rows.validation, m), label))
    return score(rows.test, prior)


def ceiling(directory: pathlib.Path, seed: int) -> dict[str, object]:
    """Fits everything to the log in `directory`; click AUC on the last 10 % of it.

    Args:
        directory: What `tfmtl data simulate` wrote.
        seed: Seed of the fit's start.

    Returns:
        "penalty", "seconds", and for "all" and each scenario: rows, bayes_auc,
        fitted_auc, means_auc, fitted_share, means_share.
    """
    begin = time.perf_counter()
    rows = read(pathlib.Path(directory))
    fitted, penalty = fit(rows, seed)
    means = smoothed_means(rows)
    label, truth = rows.click[rows.test], rows.truth[rows.test]
    scenario = rows.scenario[rows.test]
    figures: dict[str, object] = {"penalty": penalty}
    for name in ("all", *SCENARIOS):
        here = np.ones(len(label), np.bool_)
        if name != "all":
            here = scenario == SCENARIOS.index(name)
        bayes = auc(truth[here], label[here])
        fitted_auc = auc(fitted[here], label[here])
        means_auc = auc(means[here], label[here])
        figures[name] = {
            "rows": int(here.sum()),
            "bayes_auc": bayes,
            "fitted_auc": fitted_auc,
            "means_auc": means_auc,
            "fitted_share": (fitted_auc - 0.5) / (bayes - 0.5),
            "means_share": (means_auc - 0.5) / (bayes - 0.5),
        }
    figures["seconds"] = time.perf_counter() - begin
    return figures


def main() -> None:
    """Prints `ceiling` of the directory named on the command line as JSON."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("directory", type=pathlib.Path)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    print(json.dumps(ceiling(arguments.directory, arguments.seed), indent=2))


if __name__ == "__main__":
    main()
