"""Users and items with latent tastes, partly a function of their features."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from tfmtl.adapters.simulator import constants as c

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


def stream(seed: int, name: str) -> np.random.Generator:
    """A random stream of its own for `name`, so that parts stay independent."""
    return np.random.default_rng([seed, *name.encode()])


@dataclasses.dataclass(frozen=True)
class Users:
    """Columns of the users, all of length U unless a shape says otherwise."""

    age_group: Ints
    gender: Ints
    city: Ints
    device: Ints
    price_level: Ints
    activity: Floats
    visits: Floats
    topics: Ints
    """Chosen topics one user after the other."""
    topic_offsets: Ints
    """`[U + 1]`: user u chose `topics[topic_offsets[u]:topic_offsets[u + 1]]`."""
    taste: Floats
    """`[U, TASTE]`, unit variance in every direction over impressions."""
    readable_taste: Floats
    """`[U, TASTE]`: the part of `taste` that is a function of the features."""
    bias: dict[str, Floats]
    missing: dict[str, Bools]


@dataclasses.dataclass(frozen=True)
class Items:
    """Columns of the items, all of length I unless a shape says otherwise."""

    category: Ints
    creator: Ints
    price: Floats
    price_score: Floats
    """Standardised logarithm of the price."""
    price_level: Ints
    age_days: Floats
    """Age at the start of the log."""
    quality: Floats
    popularity: Floats
    """Zipf weights that sum to 1."""
    content: Floats
    """`[I, TASTE]`: the embedding that is shipped."""
    taste: Floats
    readable_taste: Floats
    bias: dict[str, Floats]
    missing: dict[str, Bools]


def zipf(count: int, *, exponent: float, shift: float) -> Floats:
    """Weights proportional to (rank + shift) ** -exponent that sum to 1."""
    weight = (np.arange(1, count + 1) + shift) ** -exponent
    return np.asarray(weight / weight.sum(), np.float64)


def standardise(values: Floats, weight: Floats) -> Floats:
    """Zero mean and unit variance under `weight`, in every column."""
    weight = weight / weight.sum()
    centred = values - np.tensordot(weight, values, 1)
    return np.asarray(centred / np.sqrt(np.tensordot(weight, centred**2, 1)))


def whiten(values: Floats, weight: Floats) -> Floats:
    """Zero mean and identity covariance under `weight`, by the symmetric square root.

    Tastes must be isotropic: only then is the correlation of two preferences exactly
    the cosine of the angle between them, and the taste match no user or item bias.
    """
    weight = weight / weight.sum()
    centred = values - weight @ values
    scale, basis = np.linalg.eigh((centred * weight[:, None]).T @ centred)
    return np.asarray(centred @ (basis / np.sqrt(scale)) @ basis.T)


def mix_tastes(
    parts: list[tuple[float, Floats]], residual: Floats, share: float, weight: Floats
) -> tuple[Floats, Floats]:
    """Adds feature parts to a residual so that `share` of the variance is readable.

    Args:
        parts: (relative variance, `[N, TASTE]`) of each feature.
        residual: `[N, TASTE]`, what only the id or the history tells.
        share: Share of the variance that the parts explain together.
        weight: `[N]`, weight of each row in all moments.

    Returns:
        The taste and its readable part, each `[N, TASTE]`.
    """
    readable = sum(
        (np.sqrt(size) * standardise(part, weight) for size, part in parts),
        np.zeros_like(residual),
    )
    readable = np.sqrt(share) * whiten(readable, weight)
    taste = readable + np.sqrt(1.0 - share) * whiten(residual, weight)
    return taste, readable


def make_users(seed: int, count: int) -> Users:
    """Draws `count` users."""
    rng = stream(seed, "users")
    age_group = rng.choice(7, count, p=[0.04, 0.20, 0.28, 0.20, 0.14, 0.09, 0.05])
    gender = rng.choice(3, count, p=[0.52, 0.46, 0.02])
    city = rng.choice(c.CITIES, count, p=zipf(c.CITIES, exponent=0.8, shift=3.0))
    device = rng.choice(4, count, p=[0.5, 0.3, 0.12, 0.08])
    activity = rng.lognormal(0.0, 1.0, count)
    activity /= activity.sum()
    city_wealth = rng.normal(0.0, 0.5, c.CITIES)
    wealth = city_wealth[city] - 0.1 * (age_group - 3) ** 2 + 0.4 * (device == 1)
    price_level = quantile_levels(wealth + rng.normal(0.0, 1.0, count))
    visits = rng.poisson(30.0 * count * activity).astype(np.float64)

    chosen = rng.integers(0, 5, count)
    offsets = np.concatenate([[0], np.cumsum(chosen)])
    topics = distinct_topics(rng, chosen)
    topic_taste = rng.normal(size=(c.TOPICS, c.TASTE))
    topic_sum = np.zeros((count, c.TASTE))
    np.add.at(topic_sum, np.repeat(np.arange(count), chosen), topic_taste[topics])
    topic_mean = topic_sum / np.maximum(chosen, 1)[:, None]

    taste, readable = mix_tastes(
        [
            (0.30, rng.normal(size=(7, c.TASTE))[age_group]),
            (0.15, rng.normal(size=(3, c.TASTE))[gender]),
            (0.25, rng.normal(size=(c.CITIES, c.TASTE))[city]),
            (0.30, topic_mean),
        ],
        rng.normal(size=(count, c.TASTE)),
        c.USER_READABLE,
        activity,
    )
    bias = {task: c.TASK_BIAS * rng.normal(size=count) for task in c.TASK_ANGLE}
    age_bias = rng.normal(0.0, 0.1, 7)
    bias["click"] = age_bias[age_group] + c.USER_BIAS * rng.normal(size=count)
    missing = draw_missing(rng, "user_", count)
    return Users(
        age_group=age_group,
        gender=gender,
        city=city,
        device=device,
        price_level=price_level,
        activity=activity,
        visits=visits,
        topics=topics,
        topic_offsets=offsets,
        taste=taste,
        readable_taste=readable,
        bias=bias,
        missing=missing,
    )


def make_items(seed: int, count: int) -> Items:
    """Draws `count` items; the creators are a tenth of them, at most 500."""
    rng = stream(seed, "items")
    creators = min(c.CREATORS, max(1, count // 10))
    # Ranks are dealt at random, so that an item's number says nothing.
    popularity = rng.permutation(zipf(count, exponent=0.9, shift=10.0))
    category = rng.choice(
        c.CATEGORIES, count, p=zipf(c.CATEGORIES, exponent=0.8, shift=3.0)
    )
    creator = rng.choice(creators, count, p=zipf(creators, exponent=0.5, shift=5.0))
    log_price = rng.normal(3.5, 0.8, c.CATEGORIES)[category] + rng.normal(0, 0.6, count)
    price_score = standardise(log_price, np.ones(count))
    quality = rng.normal(size=count)
    content_taste = rng.normal(size=(count, c.TASTE))
    rotation = np.linalg.qr(rng.normal(size=(c.TASTE, c.TASTE)))[0]
    content = content_taste @ rotation

    taste, readable = mix_tastes(
        [
            (0.40, rng.normal(size=(c.CATEGORIES, c.TASTE))[category]),
            (0.20, rng.normal(size=(creators, c.TASTE))[creator]),
            (0.40, content_taste),
        ],
        rng.normal(size=(count, c.TASTE)),
        c.ITEM_READABLE,
        popularity,
    )
    bias = {task: c.TASK_BIAS * rng.normal(size=count) for task in c.TASK_ANGLE}
    bias["click"] = c.ITEM_BIAS * rng.normal(size=count) + c.QUALITY_EFFECT * quality
    return Items(
        category=category,
        creator=creator,
        price=np.exp(log_price),
        price_score=price_score,
        price_level=quantile_levels(log_price),
        age_days=rng.exponential(60.0, count),
        quality=quality,
        popularity=popularity,
        content=content,
        taste=taste,
        readable_taste=readable,
        bias=bias,
        missing=draw_missing(rng, "item_", count),
    )


def make_follows(seed: int, users: Users, items: Items) -> Bools:
    """`[U, creators]`: who follows whom, likelier where the tastes match."""
    creators = int(items.creator.max()) + 1
    centre = np.zeros((creators, c.TASTE))
    np.add.at(centre, items.creator, items.taste)
    centre /= np.maximum(np.linalg.norm(centre, axis=1, keepdims=True), 1e-9)
    logit = 0.8 * users.taste @ centre.T - 3.8
    draw = stream(seed, "follows").random(logit.shape)
    return np.asarray(draw < 1.0 / (1.0 + np.exp(-logit)))


def quantile_levels(values: Floats) -> Ints:
    """Levels 1 to `PRICE_LEVELS`, equally many of each."""
    rank = np.argsort(np.argsort(values, kind="stable"), kind="stable")
    return np.asarray(1 + rank * c.PRICE_LEVELS // len(values), np.int64)


def distinct_topics(rng: np.random.Generator, chosen: Ints) -> Ints:
    """For each user `chosen[u]` different topics, one user after the other."""
    order = np.argsort(rng.random((len(chosen), c.TOPICS)), axis=1)
    return np.asarray(order[np.arange(c.TOPICS) < chosen[:, None]], np.int64)


def draw_missing(rng: np.random.Generator, prefix: str, count: int) -> dict[str, Bools]:
    """For each feature with missing values, which of `count` lack it."""
    return {
        name: rng.random(count) < share
        for name, share in c.MISSING.items()
        if name.startswith(prefix)
    }
