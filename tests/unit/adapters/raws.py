"""Tiny raw files in the publishers' formats, with values made up here."""

from __future__ import annotations

import gzip
import pathlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import scipy.io

LOG = [
    "user_id",
    "video_id",
    "date",
    "hourmin",
    "time_ms",
    "is_click",
    "is_like",
    "is_follow",
    "is_comment",
    "is_forward",
    "is_hate",
    "long_view",
    "play_time_ms",
    "duration_ms",
    "profile_stay_time",
    "comment_stay_time",
    "is_profile_enter",
    "is_rand",
    "tab",
]
USER = [
    "user_id",
    "user_active_degree",
    "is_lowactive_period",
    "is_live_streamer",
    "is_video_author",
    "follow_user_num",
    "follow_user_num_range",
    "fans_user_num",
    "fans_user_num_range",
    "friend_user_num",
    "friend_user_num_range",
    "register_days",
    "register_days_range",
] + [f"onehot_feat{i}" for i in range(18)]
VIDEO = [
    "video_id",
    "author_id",
    "video_type",
    "upload_dt",
    "upload_type",
    "visible_status",
    "video_duration",
    "server_width",
    "server_height",
    "music_id",
    "music_type",
    "tag",
]
MIDNIGHT_MS = 1650902400000
"""2022-04-26 00:00 in China."""


def kuairand_rows(rows: int, seed: int = 0) -> list[list[int]]:
    """Impressions of 7 users and 11 videos over 3 days; many share their time."""
    random = np.random.default_rng(seed)
    step = 3_600_000
    times = MIDNIGHT_MS - 86_400_000 + random.integers(0, 60, rows) * step
    result = []
    for time in np.sort(times).tolist():
        click, long_view, like = (int(random.random() < p) for p in (0.5, 0.3, 0.2))
        day = 20220425 + (time - MIDNIGHT_MS + 86_400_000) // 86_400_000
        user, video = int(random.integers(7)), int(random.integers(11))
        head = [user, video, day, 0, time, click, like, 0, 0, 0, 0, long_view]
        result.append([*head, 900, 9000, 0, 0, int(random.random() < 0.1), 0, 1])
    return result


def write_kuairand(
    folder: pathlib.Path, rows: list[list[int]], *, past: bool = True
) -> None:
    """The log in two files, one gzipped; features; a history file of three users."""
    half = len(rows) // 2
    head = ",".join(LOG) + "\n"
    texts = [
        head + "".join(",".join(map(str, r)) + "\n" for r in part)
        for part in (rows[:half], rows[half:])
    ]
    (folder / "log_standard_a_pure.csv").write_text(texts[0])
    with gzip.open(folder / "log_standard_b_pure.csv.gz", "wt") as file:
        file.write(texts[1])
    users = [",".join(USER)]
    for user in range(7):
        onehot = ["1"] * 17 + ["" if user == 3 else "0.0"]
        line = [str(user), "full_active", "0", "1", "1", "5", "(0,10]", "20"]
        line += ["[10,100)", "3", "[1,5)", "730", "730+", *onehot]
        users.append(",".join(f'"{v}"' if "," in v else v for v in line))
    (folder / "user_features_pure.csv").write_text("\n".join(users) + "\n")
    videos = [",".join(VIDEO)]
    for video in range(11):
        tag = ["", "7", '"3,9"'][video % 3]
        videos.append(
            f"{video},{100 + video // 2},NORMAL,2022-04-10,Web,0.0,,720.0,1280.0,5,,"
            + tag
        )
    (folder / "video_features_basic_pure.csv").write_text("\n".join(videos) + "\n")
    if past:
        last = MIDNIGHT_MS - 86_400_000 - 1000
        table = {
            "user_id": [0, 1, 2],
            "history_len": [3, 1, 2],
            "last_time_ms": [last, last - 5, last - 9],
            "watch_seq": [[1, 2, 3], [4], [1, 1]],
            "like_seq": [[2], [], []],
            "long_watch_seq": [[2, 3], [], [1]],
        }
        path = folder / "user_sequences_until_2022-04-24.parquet"
        pq.write_table(pa.table(table), path)


def write_movielens_1m(folder: pathlib.Path, ratings: list[tuple[int, ...]]) -> None:
    """ratings.dat of (user, movie, rating, time); four users, thirty movies."""
    lines = "".join("::".join(map(str, r)) + "\n" for r in ratings)
    (folder / "ratings.dat").write_text(lines, encoding="latin-1")
    users = "1::F::1::10::48067\n2::M::25::16::70072-11\n3::M::56::15::02460\n"
    (folder / "users.dat").write_text(users + "4::F::18::0::9\n")
    movies = "".join(f"{m}::Amélie {m} ({1990 + m})::Drama|War\n" for m in range(1, 31))
    (folder / "movies.dat").write_text(movies, encoding="latin-1")


def write_movielens_100k(folder: pathlib.Path, ratings: list[tuple[int, ...]]) -> None:
    """u.data, u.user and u.item of two users and two movies."""
    lines = "".join("\t".join(map(str, r)) + "\n" for r in ratings)
    (folder / "u.data").write_text(lines)
    (folder / "u.user").write_text("1|24|M|technician|85711\n2|53|F|other|94043\n")
    flags = "|".join(["0", "1", "1"] + ["0"] * 16)
    items = [f"{m}|Toy Story (1995)|01-Jan-1995||url|{flags}" for m in (1, 2)]
    (folder / "u.item").write_text("\n".join(items) + "\n", encoding="latin-1")


def write_ciao(folder: pathlib.Path, matrix: list[list[int]]) -> None:
    """The .mat file with the matrix `rating`."""
    path = folder / "ciao_rating_with_timestamp.mat"
    scipy.io.savemat(path, {"rating": np.array(matrix, np.int32)})


ADULT = (
    "39, State-gov, 77516, Bachelors, 13, Never-married, Adm-clerical, Not-in-family, "
    "White, Male, 2174, 0, 40, United-States, <=50K"
)


def write_adult(folder: pathlib.Path, more: str = "") -> None:
    """Three good lines, one repeated, and `more`; a test file with its comment."""
    married = ADULT.replace("Never-married", "Divorced").replace("<=", ">")
    unknown = ADULT.replace("State-gov", "?").replace(" Male", " Female")
    text = "\n".join([ADULT, married, unknown, ADULT]) + "\n" + more
    (folder / "adult.data").write_text(text)
    test = f"|1x3 Cross validator\n{ADULT}.\n{married}.\n\n"
    (folder / "adult.test").write_text(test)


CENSUS = (
    "62, Private,43,23, High school graduate,0, Not in universe, Never married,"
    " Education, Adm support, White, All other, Female, Not in universe,"
    " Not in universe, Full-time schedules,0,0,0, Single, Not in universe,"
    " Not in universe, Householder, Householder,1819.08, ?, ?, ?,"
    " Not in universe under 1 year old, ?,4, Not in universe, United-States,"
    " United-States, United-States, Native,0, Not in universe,2,52,95, 50000+."
)

CCP_HEAD = (
    "click,purchase,101,121,122,124,125,126,127,128,129,205,206,207,210,216,508,509,"
    "702,853,301,109_14,110_14,127_14,150_14,D109_14,D110_14,D127_14,D150_14,D508,"
    "D509,D702,D853"
)
CCP_ROW = "1,0," + ",".join(["1"] * 18) + ",3" + ",1" * 4 + ",0.25" * 8

ALIEXPRESS_HEAD = (
    ["search_id"]
    + [f"categorical_{i}" for i in range(1, 17)]
    + [f"numerical_{i}" for i in range(1, 64)]
    + ["click", "conversion"]
)


def aliexpress_text(searches: list[int], head: list[str] | None = None) -> str:
    """A CSV file with a row per search; the first one converts."""
    lines = [",".join(head or ALIEXPRESS_HEAD)]
    for place, search in enumerate(searches):
        first = int(place == 0)
        values = [search, *range(16), *([0.5] * 63), first, first]
        lines.append(",".join(map(str, values)))
    return "\n".join(lines) + "\n"
