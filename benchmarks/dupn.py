"""DUPN, its ablations and its baselines on Alibaba 2014: who comes back to a brand?

    python -m benchmarks.dupn --raw DIR --out DIR [--full] [--features all|sequence]
        [--seeds N] [--models NAME ...] [--work DIR] [--minutes N]

Y. Ni et al., KDD 2018, section 4. The data are those of the shipped experiment
`alibaba-2014`: a row is a user, a brand and a day on which the user did something with
it; the tasks are whether the user clicks or buys the brand on the next day, and within
seven days; split by time with a gap of seven days. A step of the behaviour sequence is
an event of an earlier day: the brand is the item, what was done and how long ago are
its properties. All four tasks are learnt together.

The paper's widths: LSTM and heads 128, attention 128 and 64, Wide & Deep and DSSM 1024,
512, 128, CNNMax 64 kernels of each window 1 to 10; dropout 0.2 in all networks. There
is no search query here: the request, which DUPN's attention and CNNMax's profile read,
is the day and the brand acted on, the query by which Wide & Deep pools the sequence.
The heads of DUPN and CNNMax read the row's counters beside the brand. Wide and the
linear part of Wide & Deep get the cross of user and brand; Wide pools the sequence by
its mean. `DUPN w2v` reads frozen word2vec vectors of brands, learnt from the training
split's sequences, where `DUPN all` learns embeddings. One kind of optimiser for all,
batches of 256; only the networks' learning rate is a model's own: at full size the best
of `RATES` on the validation split with another seed, at the reduced size
`REDUCED_RATES`. Embeddings, which start at a spread of 0.01, have one rate for all
models: at the networks' 1e-3 and batches of 1,024, those of the properties were still
about as small when ids began to be learnt by heart, after one or two passes, and the
ablations could not differ. The step is chosen on validation by the mean AUC of the
tasks; the test split is read once.

`--features sequence` leaves out the counters of earlier days, which sum the sequence up
by hand. Reduced: the last 20 behaviours, at most 4 epochs, 3 seeds. Full: 50, at most
20 epochs, 10 seeds, both sets of features. Figures are kept as they come, and a call
with the same `--out` continues.
"""

from __future__ import annotations

import argparse
import copy
import pathlib
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.reproduction import plus_minus, t_interval
from benchmarks.trials import (
    Document,
    Record,
    Study,
    arguments,
    make_dataset,
    origin,
    shipped,
    study,
    table,
    with_model,
)
from pipeline import item_vectors
from tfmtl.schema.load import parse_experiment

ADAPTER = "alibaba-2014"
ABLATIONS = ("all", "bplstm", "bpatt", "nobp")
W2V = "DUPN w2v"
MODELS = (
    *(f"DUPN {ablation}" for ablation in ABLATIONS),
    W2V,
    "CNNMax",
    "DSSM",
    "WideDeep",
    "Wide",
)
RATES = (3e-4, 1e-3, 3e-3, 1e-2)
REDUCED_RATES = {"Wide": 1e-2}
REDUCED_RATE = 1e-3
EMBEDDING_RATE = 1e-2
RATE_SEED = 1_000
ROW_FEATURES = ("brand_id", "clicks", "buys", "favourites", "carts")
COUNTERS = "past_"
BRANDS, VECTORS, SIZE = "brands", "word2vec", 16
"""The side table of brands, the feature that reads it, and its width: as learnt."""
CLAIMS = (
    ("DUPN all", "DUPN bplstm"),
    ("DUPN all", "DUPN bpatt"),
    ("DUPN bplstm", "DUPN nobp"),
    ("DUPN bpatt", "DUPN nobp"),
    ("DUPN all", "DUPN nobp"),
    ("DUPN all", W2V),
    ("DUPN all", "CNNMax"),
    ("DUPN all", "WideDeep"),
    ("DUPN all", "DSSM"),
    ("DUPN all", "Wide"),
    ("WideDeep", "Wide"),
)
"""The orders that the paper's table 2 reports: better, worse."""


def base_document(features: str, full: bool) -> Document:
    """The shipped experiment with all tasks as main ones, and the cross for Wide."""
    document = shipped("alibaba-2014")
    dataset = document["dataset"]
    for task in dataset["tasks"]:
        task.pop("role", None)
    kept = [
        f
        for f in dataset["features"]
        if features == "all" or not f["name"].startswith(COUNTERS)
    ]
    for feature in kept:
        if feature["name"] == "history" and not full:
            feature["max_length"] = 20
    cross = {"kind": "cross", "of": ["user_id", "brand_id"], "buckets": 65_536}
    dataset["features"] = [*kept, {"name": "user_brand", **cross, "dim": 4}]
    document["regularization"] = {"id_dropout": 0.1}
    document["training"] = {
        "batch_size": 256,
        "epochs": 20 if full else 4,
        "monitor": "mean/auc",
        "patience": 3 if full else 2,
    }
    return document


def model_document(base: Document, model: str, rate: float) -> Document:
    """The experiment of one line of the table."""
    name, _, ablation = model.partition(" ")
    dataset = base["dataset"]
    of_row = [
        f["name"]
        for f in dataset["features"]
        if f["name"] in ROW_FEATURES
        or f["name"].startswith((f"{COUNTERS}brand", f"{COUNTERS}pair"))
    ]
    config: dict[str, Any] = {}
    if name in ("DUPN", "CNNMax"):
        config = {
            "query_features": ["brand_id", "day"],
            "head_item_features": {t["name"]: of_row for t in dataset["tasks"]},
        }
    if model == W2V:
        config["item_vectors"] = VECTORS
        config["query_features"] = [VECTORS, "day"]
        replaced = [VECTORS if n == "brand_id" else n for n in of_row]
        config["head_item_features"] = {t["name"]: replaced for t in dataset["tasks"]}
    elif ablation:
        config["properties"] = ablation
    if name != "Wide":
        config["dropout"] = 0.2
    document = with_model(base, name, config)
    if name == "Wide":
        for feature in document["dataset"]["features"]:
            if feature["kind"] == "sequence":
                del feature["query"]
                feature["pooling"] = "mean"
    document["optimizers"]["default"]["learning_rate"] = rate
    document["optimizers"]["embedding"]["learning_rate"] = EMBEDDING_RATE
    return document


def with_vectors(base: Document, path: str = f"{BRANDS}.parquet") -> Document:
    """The experiment with the side table of brands; its path is no part of a trial."""
    document = copy.deepcopy(base)
    dataset = document["dataset"]
    table = {"path": path, "key": item_vectors.KEY, "feature": "brand_id"}
    dataset["side_tables"] = {BRANDS: table}
    vector = {"kind": "vector", "side": "item", "column": item_vectors.VECTOR}
    dataset["features"].append(
        {"name": VECTORS, **vector, "table": BRANDS, "size": SIZE}
    )
    return document


def make_vectors_dataset(
    base: Document, raw: pathlib.Path, work: pathlib.Path
) -> pathlib.Path:
    """The dataset directory with vectors of brands from the training split."""
    file = (work / f"{BRANDS}.parquet").absolute()
    if not file.exists():
        item_vectors.run(
            parse_experiment(base).dataset,
            [str(work / ADAPTER / "logs" / "*.parquet")],
            "history_brand",
            file,
            item_vectors.ItemVectors(size=SIZE),
        )
    return make_dataset(with_vectors(base, str(file)), ADAPTER, raw, work)


def rate_of(
    to: Study, data: str, base: Document, dataset: pathlib.Path, model: str
) -> float | None:
    """The learning rate with the best validation AUC; None where time ran out."""
    found: dict[float, float] = {}
    for rate in RATES:
        document = model_document(base, model, rate)
        trial = to.trial(f"{data}, rates", model, document, dataset, RATE_SEED)
        if trial is None:
            return None
        if "failed" not in trial:
            found[rate] = trial["validation"]
    return max(found, key=lambda r: found[r]) if found else REDUCED_RATE


def run(
    to: Study, data: str, base: Document, options: argparse.Namespace
) -> list[Record]:
    """All trials of one set of features that there are, or was time for."""
    dataset = make_dataset(base, ADAPTER, options.raw, to.work)
    bases = dict.fromkeys(options.models, (base, dataset))
    if W2V in bases:
        with_them = make_vectors_dataset(base, options.raw, to.work)
        bases[W2V] = (with_vectors(base), with_them)
    rates: dict[str, float] = {}
    for model in options.models:
        rate: float | None = REDUCED_RATES.get(model, REDUCED_RATE)
        if options.full:
            rate = rate_of(to, data, *bases[model], model)
        if rate is not None:
            rates[model] = rate
    trials = []
    for seed in range(options.seeds):
        for model, rate in rates.items():
            of, dataset = bases[model]
            document = model_document(of, model, rate)
            trial = to.trial(data, model, document, dataset, seed)
            if trial is not None:
                trials.append({**trial, "learning_rate": rate})
    return trials


def by_model(trials: Sequence[Record]) -> dict[str, list[Record]]:
    """Model to its trials that ended well, in order of their seeds."""
    found: dict[str, list[Record]] = {}
    for trial in trials:
        if "failed" not in trial:
            found.setdefault(trial["model"], []).append(trial)
    return found


def results(trials: Sequence[Record]) -> str:
    """The table of one set of features, failures among its lines."""
    good = by_model(trials)
    tasks = list(next(iter(good.values()))[0]["tasks"]) if good else []
    head = ["model", *tasks, "mean", "seeds", "rate", "network weights", "MACs", "s"]
    lines = []
    for model in dict.fromkeys(t["model"] for t in trials):
        failed = [t for t in trials if t["model"] == model and "failed" in t]
        if model in good:
            runs = good[model]
            auc = [plus_minus([r["tasks"][t]["auc"] for r in runs]) for t in tasks]
            mean = plus_minus([r["mean_task_auc"] for r in runs])
            seconds = f"{statistics.mean(r['seconds'] for r in runs):.0f}"
            costs = [f"{runs[0][k]:,}" for k in ("dense_parameters", "macs")]
            rate = f"{runs[0]['learning_rate']:g}"
            lines.append([model, *auc, mean, str(len(runs)), rate, *costs, seconds])
        if failed:
            reason = failed[0]["failed"].replace("|", "\\|")
            seeds = ", ".join(str(t["seed"]) for t in failed)
            said = f"failed (seeds {seeds}): {reason}"
            lines.append([model, said, *[""] * (len(head) - 2)])
    if good:
        runs = next(iter(good.values()))
        lines += [
            sampling(runs, tasks, len(head)),
            positives(runs[0], tasks, len(head)),
        ]
    return table(head, lines)


def sampling(runs: Sequence[Record], tasks: Sequence[str], width: int) -> list[str]:
    """What the choice of test users moves an AUC by, whatever the seed."""
    halves = []
    for task in tasks:
        ends = [r["tasks"][task]["auc_ci"] for r in runs]
        half = statistics.mean((high - low) / 2 for low, high in ends)
        halves.append(f"± {half:.4f}")
    return ["95 % over test users", *halves, *[""] * (width - 1 - len(tasks))]


def positives(run: Record, tasks: Sequence[str], width: int) -> list[str]:
    """Positives and rows of the test split."""
    counts = [
        f"{run['tasks'][t]['positives']:,} of {run['tasks'][t]['rows']:,}"
        for t in tasks
    ]
    return ["positives", *counts, *[""] * (width - 1 - len(tasks))]


def findings(trials: Sequence[Record]) -> list[str]:
    """What the paper reports, and whether it is seen here: mean AUC, seed by seed."""
    good = {
        model: {r["seed"]: r["mean_task_auc"] for r in runs}
        for model, runs in by_model(trials).items()
    }
    lines = []
    for better, worse in CLAIMS:
        first, second = good.get(better, {}), good.get(worse, {})
        gains = [first[seed] - second[seed] for seed in first if seed in second]
        if not gains:
            continue
        low, high = t_interval(gains)
        word = "seen" if low > 0 else "not seen: the reverse" if high < 0 else "open"
        lines.append(
            f"- {better} over {worse}: {statistics.mean(gains):+.4f} "
            f"(95 % over seeds: {low:+.4f} to {high:+.4f}): **{word}**"
        )
    means = {m: statistics.mean(v.values()) for m, v in good.items()}
    ranked = sorted(means, key=lambda m: -means[m])
    if ranked:
        lines.append(f"- By mean AUC: {', '.join(ranked)}.")
        simple = [m for m in ranked if "Wide" in m and "DUPN all" in means]
        ahead = [m for m in simple if means[m] >= means["DUPN all"]]
        if ahead:
            lines.append(f"- Simple models at or above DUPN: {', '.join(ahead)}.")
    return lines


def figure(trials: Mapping[str, Sequence[Record]], path: pathlib.Path) -> None:
    """AUC of every seed, a panel a task, a row of panels a set of features."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    drawn = {data: by_model(found) for data, found in trials.items()}
    drawn = {data: models for data, models in drawn.items() if models}
    if not drawn:
        return
    tasks = list(next(iter(next(iter(drawn.values())).values()))[0]["tasks"])
    panels, axes = pyplot.subplots(
        len(drawn),
        len(tasks),
        figsize=(2.6 * len(tasks) + 1, 2.6 * len(drawn)),
        sharey="row",
        squeeze=False,
    )
    for row, (data, models) in zip(axes, drawn.items()):
        names = list(models)[::-1]
        for axis, task in zip(row, tasks):
            for place, name in enumerate(names):
                values = [r["tasks"][task]["auc"] for r in models[name]]
                colour = "C0" if name.startswith("DUPN") else "C1"
                axis.plot(values, [place] * len(values), ".", color=colour, alpha=0.6)
                axis.plot(statistics.mean(values), place, "|", color="black", ms=12)
            axis.set_yticks(range(len(names)), names)
            axis.set_title(f"{task}, {data}", fontsize=9)
            axis.set_xlabel("test AUC")
            axis.grid(axis="x", alpha=0.3)
    panels.tight_layout()
    panels.savefig(path)
    pyplot.close(panels)


def main() -> None:
    """Runs the study; prints the tables and writes them beside the figure."""
    parser = arguments(__doc__ or "", "3 reduced, 10 full")
    parser.add_argument(
        "--features",
        nargs="+",
        choices=["all", "sequence"],
        help="all, or without the counters of earlier days; both at full size",
    )
    options = parser.parse_args()
    options.seeds = options.seeds or (10 if options.full else 3)
    options.models = options.models or list(MODELS)
    unknown = sorted({*options.models} - {*MODELS})
    if unknown:
        parser.error(f"--models: {unknown}; there are {list(MODELS)}")
    sets = options.features or (["all", "sequence"] if options.full else ["all"])
    found: dict[str, list[Record]] = {}
    with study(options, "dupn") as to:
        for features in sets:
            base = base_document(features, options.full)
            size = "full" if options.full else "reduced"
            found[features] = run(
                to, f"{features}, {size}", copy.deepcopy(base), options
            )
        tables = []
        for features, trials in found.items():
            parts = [f"Features: {features}.", results(trials), *findings(trials)]
            tables.append("\n\n".join(parts[:2]) + "\n\n" + "\n".join(parts[2:]))
        every = [t for trials in found.values() for t in trials]
        text = "\n\n".join([*tables, f"{origin(every)}."]) + "\n"
        to.ledger.write(table=text)
        figure(found, options.out / "dupn.svg")
    print(text, end="")


if __name__ == "__main__":
    main()
