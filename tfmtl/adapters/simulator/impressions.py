"""Who was shown what, where and when: requests, and the items of their lists."""

from __future__ import annotations

import dataclasses

import numpy as np

from tfmtl.adapters.simulator import constants as c
from tfmtl.adapters.simulator.world import Floats, Ints, Items, Users, stream


@dataclasses.dataclass(frozen=True)
class Impressions:
    """Requests (length R) in order of time, and rows (length N) in order of request."""

    request_user: Ints
    request_time: Ints
    """Seconds since the epoch, never falling."""
    request_scenario: Ints
    offsets: Ints
    """`[R + 1]`: request r holds the rows `offsets[r]:offsets[r + 1]`."""
    request: Ints
    item: Ints
    position: Ints

    @property
    def user(self) -> Ints:
        """`[N]`: user of each row."""
        return self.request_user[self.request]

    @property
    def time(self) -> Ints:
        """`[N]`: timestamp of each row, that of its request."""
        return self.request_time[self.request]

    @property
    def scenario(self) -> Ints:
        """`[N]`: scenario of each row."""
        return self.request_scenario[self.request]


def make_impressions(seed: int, rows: int, users: Users, items: Items) -> Impressions:
    """Draws the requests and fills their lists with distinct items."""
    rng = stream(seed, "impressions")
    lengths = list_lengths(rng, rows)
    requests = len(lengths)
    time = request_times(rng, requests)
    user = rng.choice(len(users.activity), requests, p=users.activity)
    scenario = request_scenarios(rng, user, time, users)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    request = np.repeat(np.arange(requests), lengths)
    item = draw_items(rng, request, scenario[request], items)
    # The logging policy ranks by quality with noise, hence position is confounded with
    # the item as in real logs.
    policy = items.quality[item] + rng.normal(0.0, 1.5, rows)
    item = item[np.lexsort((-policy, request))]
    return Impressions(
        request_user=user,
        request_time=time,
        request_scenario=scenario,
        offsets=offsets,
        request=request,
        item=item,
        position=np.arange(rows) - offsets[request],
    )


def list_lengths(rng: np.random.Generator, rows: int) -> Ints:
    """Lengths within `LIST_LENGTH`, 10 on average, that sum to `rows`."""
    shortest, longest = c.LIST_LENGTH
    draw = shortest + rng.binomial(longest - shortest, 1 / 3, rows // shortest + 1)
    lengths = draw[: int(np.searchsorted(np.cumsum(draw), rows, side="right"))]
    rest = rows - int(lengths.sum())
    if rest >= shortest:
        return np.append(lengths, rest)
    for _ in range(rest):
        lengths[int(np.argmin(lengths))] += 1
    return lengths


def request_times(rng: np.random.Generator, count: int) -> Ints:
    """Sorted seconds over the days of the log, busiest at 20:00 UTC."""
    weight = 1.0 + 0.7 * np.cos((np.arange(24) - 20) * np.pi / 12)
    hour = rng.choice(24, count, p=weight / weight.sum())
    day = rng.integers(0, c.DAYS, count)
    second = rng.integers(0, 3600, count)
    return np.sort(c.START + c.DAY * day + 3600 * hour + second)


def request_scenarios(
    rng: np.random.Generator, user: Ints, time: Ints, users: Users
) -> Ints:
    """Scenario of each request: the young watch live in the evening, the old search."""
    age = (users.age_group[user] - 3) / 3
    evening = np.cos((time // 3600 % 24 - 21) * np.pi / 12)
    tilt = np.stack([0.0 * age, 0.5 * age, 0.5 * evening - 1.0 * age], axis=1)
    share = np.asarray(c.SCENARIO_SHARE)
    offset = np.log(share)
    for _ in range(20):  # Moves the mean probabilities onto the stated shares.
        weight = np.exp(tilt + offset)
        probability = weight / weight.sum(axis=1, keepdims=True)
        offset += np.log(share / probability.mean(axis=0))
    threshold = probability.cumsum(axis=1)[:, :-1]
    return np.asarray((rng.random((len(user), 1)) > threshold).sum(axis=1), np.int64)


def scenario_popularity(rng: np.random.Generator, items: Items) -> Floats:
    """`[S, I]`: search shows cheaper and older items, live few of the categories."""
    category = rng.normal(0.0, 1.0, (len(c.SCENARIOS), c.CATEGORIES))
    category[0] = 0.0
    category[2] *= 1.5
    tilt = category[:, items.category]
    tilt[1] += 0.3 * np.log1p(items.age_days / 30.0) - 0.3 * items.price_score
    tilt[2] += 0.3 * items.price_score
    weight = items.popularity * np.exp(np.clip(tilt, -2.5, 2.5))
    return np.asarray(weight / weight.sum(axis=1, keepdims=True))


def draw_items(
    rng: np.random.Generator, request: Ints, scenario: Ints, items: Items
) -> Ints:
    """`[N]`: items by the scenario's popularity, without repetition in a request."""
    weight = scenario_popularity(rng, items)
    count = weight.shape[1]
    cumulative = (weight.cumsum(axis=1) + np.arange(len(weight))[:, None]).ravel()
    item = np.empty(len(request), np.int64)
    pending = np.arange(len(request))
    while len(pending):
        level = scenario[pending] + rng.random(len(pending))
        found = np.searchsorted(cumulative, level, side="right")
        item[pending] = np.clip(found - count * scenario[pending], 0, count - 1)
        key = request * count + item
        order = np.argsort(key, kind="stable")
        repeated = np.flatnonzero(np.diff(key[order]) == 0) + 1
        pending = np.sort(order[repeated])
    return item
