"""The Arrow tables that are written: names, types and nulls of every column."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from tfmtl.adapters.simulator import constants as c
from tfmtl.adapters.simulator.history import ACTIONS, Histories
from tfmtl.adapters.simulator.impressions import Impressions
from tfmtl.adapters.simulator.outcomes import Labels, Truth
from tfmtl.adapters.simulator.world import Bools, Floats, Ints, Items, Users


def names(prefix: str, count: int, width: int) -> pa.Array:
    """`prefix` + number, padded with zeros: "u00042"."""
    return pa.array([f"{prefix}{index:0{width}d}" for index in range(count)])


def pick(values: pa.Array, index: Ints, missing: Bools | None = None) -> pa.Array:
    """`values[index]`, null where `missing`."""
    return values.take(pa.array(index, mask=missing))


def ragged(offsets: Ints, values: pa.Array) -> pa.Array:
    """A list column from `[n + 1]` offsets and the flat values."""
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values)


class LogColumns:
    """Builds the log's table for any span of rows."""

    def __init__(
        self,
        log: Impressions,
        users: Users,
        items: Items,
        follows: Bools,
        labels: Labels,
        histories: Histories,
    ) -> None:
        self._log, self._users, self._items = log, users, items
        self._follows, self._labels, self._histories = follows, labels, histories
        self._user_names = names("u", len(users.age_group), 5)
        self._item_names = names("i", len(items.category), 5)
        self._creator_names = names("m", int(items.creator.max()) + 1, 3)
        self._category_names = names("c", c.CATEGORIES, 2)
        self._city_names = names("city", c.CITIES, 2)
        self._topic_names = names("t", c.TOPICS, 2)

    def table(self, start: int, end: int) -> pa.Table:
        """The rows `start` to `end` as a table."""
        log, rows = self._log, slice(start, end)
        request, item = log.request[rows], log.item[rows]
        user, time = log.request_user[request], log.request_time[request]
        columns: dict[str, pa.Array] = {
            "row_id": pa.array(np.arange(start, end)),
            "request_id": pa.array(request),
            "timestamp": pa.array(time),
            "scenario": pick(pa.array(c.SCENARIOS), log.request_scenario[request]),
            "position": pa.array(log.position[rows]),
            "user_id": pick(self._user_names, user),
            "item_id": pick(self._item_names, item),
        }
        columns |= self._user_columns(user)
        columns |= self._item_columns(item, time)
        followed = self._follows[user, self._items.creator[item]]
        columns["follows_creator"] = pa.array(followed.astype(np.int64))
        columns |= self._history_columns(request, time)
        columns |= self._label_columns(rows)
        return pa.table(columns)

    def _user_columns(self, user: Ints) -> dict[str, pa.Array]:
        users = self._users
        missing = {name: lacks[user] for name, lacks in users.missing.items()}
        first = users.topic_offsets[user]
        length = users.topic_offsets[user + 1] - first
        offsets = np.concatenate([[0], np.cumsum(length)])
        element = np.repeat(first - offsets[:-1], length) + np.arange(offsets[-1])
        return {
            "user_age_group": pick(pa.array(c.AGE_GROUPS), users.age_group[user]),
            "user_gender": pick(
                pa.array(c.GENDERS), users.gender[user], missing["user_gender"]
            ),
            "user_city": pick(self._city_names, users.city[user], missing["user_city"]),
            "user_device": pick(pa.array(c.DEVICES), users.device[user]),
            "user_price_level": pa.array(users.price_level[user]),
            "user_activity": pa.array(
                users.visits[user], pa.float32(), mask=missing["user_activity"]
            ),
            "user_interests": ragged(
                offsets, pick(self._topic_names, users.topics[element])
            ),
        }

    def _item_columns(self, item: Ints, time: Ints) -> dict[str, pa.Array]:
        items = self._items
        missing = {name: lacks[item] for name, lacks in items.missing.items()}
        age_days = items.age_days[item] + (time - c.START) / c.DAY
        content = items.content[item].astype(np.float32)
        offsets = np.arange(len(item) + 1) * c.TASTE
        return {
            "item_category": pick(self._category_names, items.category[item]),
            "item_creator": pick(
                self._creator_names, items.creator[item], missing["item_creator"]
            ),
            "item_price": pa.array(
                items.price[item], pa.float32(), mask=missing["item_price"]
            ),
            "item_price_level": pa.array(items.price_level[item]),
            "item_age_days": pa.array(age_days, pa.float32()),
            "item_quality": pa.array(
                items.quality[item], pa.float32(), mask=missing["item_quality"]
            ),
            "item_content": ragged(offsets, pa.array(content.ravel())),
        }

    def _history_columns(self, request: Ints, time: Ints) -> dict[str, pa.Array]:
        histories = self._histories
        offsets, click, age = histories.rows(request, time)
        action = pick(pa.array(ACTIONS), histories.action[click])
        return {
            "hist_item": ragged(offsets, pick(self._item_names, histories.item[click])),
            "hist_action": ragged(offsets, action),
            "hist_age_hours": ragged(offsets, pa.array(age, pa.float32())),
        }

    def _label_columns(self, rows: slice) -> dict[str, pa.Array]:
        event = {
            name: happened[rows].astype(np.int64)
            for name, happened in self._labels.event.items()
        }
        columns = {
            task: pa.array(event[task])
            for task in ("click", "cart", "favourite", "buy")
        }
        columns["like"] = pa.array(event["like"], mask=~self._labels.like_known[rows])
        columns["watch_time"] = pa.array(
            self._labels.watch_time[rows], pa.float32(), mask=event["click"] == 0
        )
        return columns


def truth_table(truth: Truth) -> pa.Table:
    """The true probabilities, one row for each row of the log."""
    columns: dict[str, Floats | Ints] = {
        "row_id": np.arange(len(truth.click)),
        "click": truth.click,
        "click_at_first_position": truth.click_first,
    }
    for task in ("cart", "favourite", "buy", "like"):
        columns[task] = truth.joint(task)
    for task in ("cart", "favourite", "like"):
        columns[f"{task}_given_click"] = truth.given[task]
    columns["like_where_known"] = truth.like_where_known
    columns["intent_given_click"] = truth.intent
    columns["buy_given_click"] = truth.buy_given_click
    columns["buy_given_intent"] = truth.given["buy"]
    mean = np.exp(truth.watch_log_mean + 0.5 * c.WATCH_NOISE**2)
    columns["watch_time_given_click"] = mean
    columns["watch_time_log_mean"] = truth.watch_log_mean
    return pa.table({name: pa.array(values) for name, values in columns.items()})
