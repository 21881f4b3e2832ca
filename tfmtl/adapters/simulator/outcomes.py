"""True probabilities of every task for every row, and the labels drawn from them."""

from __future__ import annotations

import dataclasses

import numpy as np

from tfmtl.adapters.simulator import constants as c
from tfmtl.adapters.simulator.impressions import Impressions
from tfmtl.adapters.simulator.world import Bools, Floats, Items, Users, stream


@dataclasses.dataclass(frozen=True)
class Truth:
    """Probabilities of each row, all `[N]`; "given" means of the conditional event."""

    click: Floats
    click_first: Floats
    """As if the item had been shown at position 0."""
    given: dict[str, Floats]
    """cart, favourite and like given a click; buy given cart or favourite."""
    intent: Floats
    """Cart or favourite, given a click."""
    watch_log_mean: Floats
    """Mean of the logarithm of the seconds watched, given a click."""
    unanswered: Floats
    """The like is unknown, given a click."""

    @property
    def like_where_known(self) -> Floats:
        """Probability of a like for an impression whose like is known.

        Only clicks can go unanswered, hence a known like is less often a click.
        """
        answered = 1.0 - self.unanswered
        known = 1.0 - self.click * self.unanswered
        return self.click * answered * self.given["like"] / known

    @property
    def buy_given_click(self) -> Floats:
        """Probability of a buy given a click."""
        return self.given["buy"] * self.intent

    def joint(self, task: str) -> Floats:
        """Probability of `task` for an impression."""
        if task == "click":
            return self.click
        given = self.buy_given_click if task == "buy" else self.given[task]
        return self.click * given


@dataclasses.dataclass(frozen=True)
class Labels:
    """What happened, all `[N]`."""

    event: dict[str, Bools]
    like_known: Bools
    watch_time: Floats
    """Seconds; meaningful where clicked."""


def sigmoid(logit: Floats) -> Floats:
    """1 / (1 + exp(-logit))."""
    return np.asarray(1.0 / (1.0 + np.exp(-logit)))


def intercept(logit: Floats, weight: Floats, rate: float) -> float:
    """The constant that makes the weighted mean of sigmoid(logit + constant) `rate`.

    Newton's method on a thinned sample of at most 50,000 rows; without rows, the
    rate's own log-odds.
    """
    constant = float(np.log(rate / (1.0 - rate)))
    if not len(logit):
        return constant
    step = -(-len(logit) // 50_000)
    logit, weight = logit[::step], weight[::step] / weight[::step].sum()
    for _ in range(30):
        probability = sigmoid(logit + constant)
        slope = float(weight @ (probability * (1.0 - probability)))
        constant -= (float(weight @ probability) - rate) / slope
    return constant


class TasteMatch:
    """The match of user and item tastes, turned by any angle; unit variance.

    With J the quarter turn in the planes (0, 1), (2, 3) ..., the match at angle a is
    cos a <u, D v> + sin a <u, D J v>, where D is diagonal and the same for both axes
    of a plane. For isotropic tastes two matches correlate with the cosine of the
    difference of their angles.
    """

    def __init__(self, log: Impressions, users: Users, items: Items) -> None:
        scale = np.sqrt(np.repeat(c.PLANE_SHARE, 2) / 2.0)
        user, item = (scale * users.taste)[log.user], items.taste[log.item]
        even, odd = item[:, 0::2], item[:, 1::2]
        self._aligned = np.einsum("nk,nk->n", user, item)
        self._turned = np.einsum("nk,nk->n", user[:, 1::2], even)
        self._turned -= np.einsum("nk,nk->n", user[:, 0::2], odd)
        self._scenario_angle = np.asarray(c.SCENARIO_ANGLE)[log.scenario]

    def __call__(self, task: str) -> Floats:
        """`[N]`: `TASK_SCALE` times the match for `task` in each row's scenario."""
        angle = self._scenario_angle + c.TASK_ANGLE[task]
        match = np.cos(angle) * self._aligned + np.sin(angle) * self._turned
        return np.asarray(c.TASK_SCALE[task] * match)


def click_logit(
    log: Impressions, users: Users, items: Items, follows: Bools, match: TasteMatch
) -> Floats:
    """`[N]`: the click logit at position 0, before the scenario's constant."""
    scenario = log.scenario
    age_days = items.age_days[log.item] + (log.time - c.START) / c.DAY
    freshness = (3.6 - np.log1p(age_days)) / 1.1
    hour = log.time // 3600 % 24
    return np.asarray(
        match("click")
        + users.bias["click"][log.user]
        + items.bias["click"][log.item]
        + np.asarray(c.PRICE_EFFECT)[scenario] * items.price_score[log.item]
        + np.asarray(c.FRESHNESS_EFFECT)[scenario] * freshness
        + c.FOLLOW_EFFECT * follows[log.user, items.creator[log.item]]
        + c.HOUR_EFFECT * np.cos((hour - 21) * np.pi / 12)
    )


def make_truth(log: Impressions, users: Users, items: Items, follows: Bools) -> Truth:
    """Computes every probability; constants are set so that base rates hold."""
    match = TasteMatch(log, users, items)
    relevance = click_logit(log, users, items, follows, match)
    bias = -c.POSITION_EFFECT * np.log1p(log.position)
    scenario = log.scenario
    for index, rate in enumerate(c.CLICK_RATE):
        here = scenario == index
        total = relevance[here] + bias[here]
        relevance[here] += intercept(total, np.ones(len(total)), rate)
    click = sigmoid(relevance + bias)

    levels = items.price_level[log.item] - users.price_level[log.user]
    distance = (levels / (c.PRICE_LEVELS - 1)) ** 2

    def conditional(task: str, weight: Floats) -> Floats:
        logit = match(task) + users.bias[task][log.user] + items.bias[task][log.item]
        logit = logit - c.PRICE_MATCH.get(task, 0.0) * distance
        return sigmoid(logit + intercept(logit, weight, c.BASE_RATE[task]))

    given = {task: conditional(task, click) for task in ("cart", "favourite", "like")}
    intent = 1.0 - (1.0 - given["cart"]) * (1.0 - given["favourite"])
    given["buy"] = conditional("buy", click * intent)
    least, most = c.LIKE_UNANSWERED
    age = users.age_group[log.user] / (len(c.AGE_GROUPS) - 1)
    watch = (
        np.log(c.WATCH_MEDIAN)
        + match("watch_time")
        + 0.5 * users.bias["watch_time"][log.user]
        + 0.5 * items.bias["watch_time"][log.item]
    )
    return Truth(
        click=click,
        click_first=sigmoid(relevance),
        given=given,
        intent=intent,
        watch_log_mean=watch,
        unanswered=least + (most - least) * age,
    )


def draw_labels(seed: int, truth: Truth) -> Labels:
    """Draws what happened; the funnel holds row by row."""
    rng = stream(seed, "labels")
    rows = len(truth.click)
    event = {"click": rng.random(rows) < truth.click}
    for task in ("cart", "favourite", "like"):
        event[task] = event["click"] & (rng.random(rows) < truth.given[task])
    wanted = event["cart"] | event["favourite"]
    event["buy"] = wanted & (rng.random(rows) < truth.given["buy"])
    unanswered = rng.random(rows) < truth.unanswered
    noise = rng.normal(0.0, c.WATCH_NOISE, rows)
    return Labels(
        event=event,
        like_known=~(event["click"] & unanswered),
        watch_time=np.exp(truth.watch_log_mean + noise),
    )
