"""The data sets that `tfmtl data` knows: what they are, and how to prepare them.

Nothing heavy is imported here: an adapter's module is imported when it prepares.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import importlib.resources
import os
import pathlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

from tfmtl.adapters.sources import Source
from tfmtl.errors import ConfigError
from tfmtl.files import atomic_directory
from tfmtl.progress import Listener, Silent

if TYPE_CHECKING:
    from tfmtl.adapters.summary import PrepareSummary


@dataclasses.dataclass(frozen=True)
class Adapter:
    """A publisher's data set.

    Attributes:
        name: As the command line takes it.
        summary: One line.
        citation: What to cite.
        licence: The publisher's terms, in short; theirs count.
        files: Raw files that `prepare` wants, plain or with .gz.
        experiments: Worked experiment files in `tfmtl/experiments`, the first becoming
            `experiment.yaml`.
        module: Where `prepare` is, as `module:function`.
        downloads: What `download` fetches; empty where the publisher asks for a login.
        instructions: Where to get the files by hand.
        expected: Known counts of the publisher's files.
    """

    name: str
    summary: str
    citation: str
    licence: str
    files: tuple[str, ...]
    experiments: tuple[str, ...]
    module: str
    instructions: str
    downloads: tuple[Source, ...] = ()
    expected: Mapping[str, int] = dataclasses.field(default_factory=dict)

    def prepare(
        self,
        raw: str | os.PathLike[str],
        out: str | os.PathLike[str],
        overwrite: bool = False,
        listener: Listener | None = None,
    ) -> PrepareSummary:
        """See `prepare` below."""
        return prepare(self.name, raw, out, overwrite, listener)


_GROUPLENS = "https://files.grouplens.org/datasets/movielens"
_GROUPLENS_TERMS = (
    "GroupLens terms: research use with acknowledgement; no redistribution and no "
    "commercial use without permission"
)
_UCI = "https://archive.ics.uci.edu/static/public"

ADAPTERS: tuple[Adapter, ...] = (
    Adapter(
        name="kuairand",
        summary="impressions of a short-video app: click, long view, like, ... by tab",
        citation="Gao et al., KuaiRand, CIKM 2022",
        licence="CC BY-SA 4.0",
        files=(
            "log_standard_*.csv",
            "user_features_*.csv",
            "video_features_basic_*.csv",
            "user_sequences_until_*.parquet (optional)",
        ),
        experiments=("kuairand",),
        module="tfmtl.adapters.kuairand:prepare",
        downloads=(
            Source(
                url="https://zenodo.org/records/10439422/files/KuaiRand-Pure.tar.gz",
                file="KuaiRand-Pure.tar.gz",
            ),
        ),
        instructions="https://zenodo.org/records/10439422, KuaiRand-Pure.tar.gz",
        expected={"duplicates 2022-04-25..30": 2750},
    ),
    Adapter(
        name="movielens-1m",
        summary="a million ratings of movies; scenarios by age group",
        citation="Harper & Konstan, The MovieLens Datasets, ACM TiiS 2015",
        licence=_GROUPLENS_TERMS,
        files=("ratings.dat (or ratings.part*.dat)", "users.dat", "movies.dat"),
        experiments=("movielens-1m", "movielens-1m-time"),
        module="tfmtl.adapters.movielens:prepare_1m",
        downloads=(
            Source(
                url=f"{_GROUPLENS}/ml-1m.zip",
                file="ml-1m.zip",
                md5="c4d9eecfca2ab87c1945afe126590906",
                members={
                    "ml-1m/ratings.dat": "a89aa3591bc97d6d4e0c89459ff39362",
                    "ml-1m/users.dat": "681c0711d0d4548cd3d4718a49c2dcd8",
                    "ml-1m/movies.dat": "ef9fd9ff8d1b33faf73e2122c371e910",
                },
            ),
        ),
        instructions=f"{_GROUPLENS}/ml-1m.zip",
        expected={"rows": 1_000_209, "users": 6_040, "movies": 3_706},
    ),
    Adapter(
        name="movielens-100k",
        summary="100,000 ratings of movies: a quick check of the whole chain",
        citation="Harper & Konstan, The MovieLens Datasets, ACM TiiS 2015",
        licence=_GROUPLENS_TERMS,
        files=("u.data", "u.user", "u.item"),
        experiments=("movielens-100k",),
        module="tfmtl.adapters.movielens:prepare_100k",
        downloads=(
            Source(
                url=f"{_GROUPLENS}/ml-100k.zip",
                file="ml-100k.zip",
                md5="0e33842e24a9c977be4e0107933c0723",
                size=4_924_029,
                members={
                    "ml-100k/u.data": "6e47046882bad158b0efbb84cd5cb987",
                    "ml-100k/u.user": "1b53539edc13caad0282c8500608a319",
                    "ml-100k/u.item": "c9e7f390115d79079537301d5204f3f7",
                },
            ),
        ),
        instructions=f"{_GROUPLENS}/ml-100k.zip",
        expected={"rows": 100_000, "users": 943, "movies": 1_682},
    ),
    Adapter(
        name="ciao",
        summary="284,086 product ratings and their helpfulness; 28 categories",
        citation="Tang et al., mTrust, WSDM 2012; eTrust, KDD 2012",
        licence="published for research, to be cited; no formal licence",
        files=("ciao_rating_with_timestamp.mat",),
        experiments=("ciao",),
        module="tfmtl.adapters.ciao:prepare",
        instructions=(
            "https://www.cse.msu.edu/~tangjili/datasetcode/truststudy.htm, Ciao with "
            "timestamps"
        ),
        expected={"rows": 284_086, "users": 7_375},
    ),
    Adapter(
        name="alibaba-2014",
        summary="clicks, buys, favourites and carts of brands, day by day",
        citation="Alibaba Big Data Competition 2014, season 1",
        licence="competition data: research only, no redistribution",
        files=("t_alibaba_data*.csv",),
        experiments=("alibaba-2014",),
        module="tfmtl.adapters.alibaba2014:prepare",
        instructions="https://tianchi.aliyun.com (login), season 1 of 2014",
        expected={"events": 182_880, "users": 884, "brands": 9_531},
    ),
    Adapter(
        name="adult",
        summary="48,842 people of the 1994 census: income and marriage",
        citation="Becker & Kohavi, Adult, UCI 1996",
        licence="CC BY 4.0",
        files=("adult.data", "adult.test"),
        experiments=("adult",),
        module="tfmtl.adapters.adult:prepare",
        downloads=(
            Source(
                url=f"{_UCI}/2/adult.zip",
                file="adult.zip",
                members={
                    "adult.data": "5d7c39d7b8804f071cdd1f2a7c460872",
                    "adult.test": "35238206dfdf7f1fe215bbb874adecdc",
                },
            ),
        ),
        instructions="https://archive.ics.uci.edu/dataset/2/adult",
        expected={"rows": 48_842},
    ),
    Adapter(
        name="census-income",
        summary="299,285 people of 1994 and 1995: income and marriage (MMoE's data)",
        citation="Census-Income (KDD), UCI 2000; Ma et al., MMoE, KDD 2018",
        licence="CC BY 4.0",
        files=("census-income.data", "census-income.test"),
        experiments=("census-income",),
        module="tfmtl.adapters.census_income:prepare",
        downloads=(
            Source(
                url=f"{_UCI}/117/census+income+kdd.zip",
                file="census-income-kdd.zip",
                members={"census.tar.gz": None},
            ),
        ),
        instructions="https://archive.ics.uci.edu/dataset/117/census+income+kdd",
        expected={"rows": 299_285},
    ),
    Adapter(
        name="ali-ccp",
        summary="Taobao impressions: click, and purchase given a click; 3 scenarios",
        citation="Ma et al., ESMM, SIGIR 2018",
        licence="CC BY-NC-SA 4.0 (Tianchi)",
        files=("ali_ccp_train*.csv (and val, test), or ESMM's text files",),
        experiments=("ali-ccp", "ali-ccp-esmm"),
        module="tfmtl.adapters.ali_ccp:prepare",
        instructions="https://tianchi.aliyun.com/dataset/408 (login)",
    ),
    Adapter(
        name="aliexpress",
        summary="search impressions in five countries: click, conversion given a click",
        citation="Li et al., CIKM 2020",
        licence="CC BY-NC-SA 4.0 (Tianchi)",
        files=("AliExpress_*/train.csv", "AliExpress_*/test.csv"),
        experiments=("aliexpress",),
        module="tfmtl.adapters.aliexpress:prepare",
        instructions="https://tianchi.aliyun.com/dataset/74690 (login)",
    ),
)


def names() -> tuple[str, ...]:
    """Names of all adapters."""
    return tuple(adapter.name for adapter in ADAPTERS)


def find(name: str) -> Adapter:
    """The adapter of this name.

    Raises:
        ConfigError: There is none.
    """
    for adapter in ADAPTERS:
        if adapter.name == name:
            return adapter
    close = difflib.get_close_matches(name, names(), n=1)
    hint = f". Did you mean {close[0]!r}?" if close else ""
    raise ConfigError(
        f"`name` must be one of {list(names())}. Received: {name!r}{hint}"
    )


def prepare(
    name: str,
    raw: str | os.PathLike[str],
    out: str | os.PathLike[str],
    overwrite: bool = False,
    listener: Listener | None = None,
) -> PrepareSummary:
    """Turns a publisher's raw files into Parquet and a worked experiment file.

    `out` appears only when it is complete: `logs/*.parquet`, tables of users and items
    beside it, `rejected.parquet`, `experiment.yaml` (and others of the data set by
    their names) and `summary.json`.

    Args:
        name: Of an adapter.
        raw: Folder with the publisher's files.
        out: New or empty folder.
        overwrite: Replace a folder that holds files.
        listener: Is told of the progress.

    Raises:
        ConfigError: No such adapter, or `out` holds files.
        DataError: A raw file is missing or is not the publisher's.
    """
    adapter = find(name)
    module, _, function = adapter.module.partition(":")
    run = getattr(importlib.import_module(module), function)
    with atomic_directory(out, overwrite=overwrite, name="prepare") as folder:
        summary: PrepareSummary = run(pathlib.Path(raw), folder, listener or Silent())
        summary.check()
        summary.write(folder)
        first = _preferred(adapter, module, folder)
        for experiment in adapter.experiments:
            target = "experiment" if experiment == first else experiment
            text = experiment_text(experiment)
            (folder / f"{target}.yaml").write_text(text, encoding="utf-8")
    return summary


def experiment_text(name: str) -> str:
    """The text of a worked experiment file of the package."""
    folder = importlib.resources.files("tfmtl") / "experiments"
    return (folder / f"{name}.yaml").read_text(encoding="utf-8")


def _preferred(adapter: Adapter, module: str, folder: pathlib.Path) -> str:
    """The experiment that fits the form of the raw files that were found."""
    choose = getattr(importlib.import_module(module), "experiment", None)
    return str(choose(folder)) if choose else adapter.experiments[0]
