"""The numbers of the simulated world: everything a reader may want to know or cite."""

from __future__ import annotations

import math

VERSION = 1
"""Raised whenever the same seed would give other data."""

START = 1_736_121_600
"""First second of the log: Monday 2025-01-06 00:00:00 UTC."""
DAYS = 10
DAY = 86_400

SCENARIOS = ("feed", "search", "live")
SCENARIO_SHARE = (0.75, 0.20, 0.05)
CLICK_RATE = (0.25, 0.38, 0.14)
"""Share of impressions clicked, by scenario."""

TASTE = 8
"""Length of the latent taste vectors; even, since preferences turn in planes."""
PLANE_SHARE = (0.70, 0.20, 0.07, 0.03)
"""Share of the variance of the taste match that lies in each plane."""
USER_READABLE = 0.75
"""Share of the variance of user taste that is a function of user features."""
ITEM_READABLE = 0.80
"""Share of the variance of item taste that is a function of item features."""

SCENARIO_ANGLE = (0.0, math.acos(0.7), -math.acos(0.3))
"""The taste match turns by this angle: preferences correlate with the cosine of the
difference, so feed and search 0.70, feed and live 0.30, search and live -0.47."""
TASK_ANGLE = {
    "click": 0.0,
    "cart": math.acos(0.5),
    "favourite": -math.acos(0.6),
    "buy": math.acos(-0.3),
    "like": math.acos(0.8),
    "watch_time": -math.acos(0.7),
}
"""A further turn for each task: its cosine is the correlation with click's taste match
in the same scenario. Buy conflicts with click."""
TASK_SCALE = {
    "click": 1.4,
    "cart": 1.0,
    "favourite": 1.0,
    "buy": 0.8,
    "like": 1.1,
    "watch_time": 0.45,
}
"""Standard deviation of the taste match in a task's logit (of the logarithm of seconds
for watch_time)."""
BASE_RATE = {"cart": 0.12, "favourite": 0.08, "buy": 0.20, "like": 0.06}
"""Mean conditional probability: given a click, for buy given cart or favourite."""

USER_BIAS = 0.42
ITEM_BIAS = 0.42
"""Standard deviations of the click logit's own user and item terms."""
TASK_BIAS = 0.3
"""Standard deviation of each other task's user term and item term."""
QUALITY_EFFECT = 0.12
PRICE_EFFECT = (-0.10, -0.20, 0.15)
"""Click logit per standard deviation of log price, by scenario: live reverses it."""
FRESHNESS_EFFECT = (0.10, 0.00, 0.15)
"""Click logit per standard deviation of younger log age, by scenario."""
FOLLOW_EFFECT = 0.8
POSITION_EFFECT = 0.35
"""The click logit falls by this times log(1 + position)."""
HOUR_EFFECT = 0.25
"""Amplitude of the daily wave in the click logit, highest at 21:00 UTC."""
PRICE_MATCH = {"cart": 1.0, "buy": 2.0}
"""Logit lost at the greatest distance between item price level and user price level,
growing with its square."""

WATCH_MEDIAN = 18.0
"""Seconds."""
WATCH_NOISE = 0.6
"""Standard deviation of the logarithm of seconds."""

AGE_GROUPS = ("under-18", "18-24", "25-34", "35-44", "45-54", "55-64", "65-plus")
GENDERS = ("female", "male", "other")
DEVICES = ("android", "ios", "web", "tablet")
CITIES = 100
TOPICS = 24
CATEGORIES = 50
CREATORS = 500
PRICE_LEVELS = 7
LIST_LENGTH = (5, 20)
HISTORY = 50

MISSING = {
    "user_gender": 0.08,
    "user_city": 0.05,
    "user_activity": 0.04,
    "item_creator": 0.03,
    "item_price": 0.05,
    "item_quality": 0.10,
}
"""Share of users or items whose value the log never knows."""
LIKE_UNANSWERED = (0.15, 0.40)
"""Share of clicks whose like is unknown, from the youngest to the oldest age group."""
