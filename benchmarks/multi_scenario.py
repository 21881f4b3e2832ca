"""Tasks times scenarios on real logs: which architecture ranks best in its cells?

    python -m benchmarks.multi_scenario --raw DIR --out DIR [--full] [--seeds N]
        [--data kuairand movielens-1m] [--models NAME ...] [--work DIR] [--minutes N]

KuaiRand-Pure: tabs 0, 1, 2, 4, 6 of a short-video app by click, long_view, like; train
04-25..28, validation 04-29, test 04-30, 2022. MovieLens-1M: three age groups by rating
>= 4 and rating = 5, random 80/10/10. Features, batches, optimisers and regularisation
are those of the shipped experiments and the same for every model; so are the dot
products of fields, where a model can read them. Losses are added up with equal weights.

One rule for sizes: the defaults of this package, with layers of 128 and 64 below towers
of 32 (M3oE: 128 and 64 in the paper's own places; PEPNet: no towers of its own), and as
many experts as an architecture's default has: nothing is tuned for one model. Numbers
and multiplications stand in the table. ExpertFusion is matched to the MMoE of the
table, parameters within 1 %, MACs within +2 %.

Training stops early on the validation split's mean cell AUC, and the test split is read
once. A cell is a task in a scenario; the gain is over SingleTask, seed by seed. Cells
with few positives move by chance far more than by architecture: the last lines of a
table say how far, and a second mean is over the cells with at least 50 positives alone.

Reduced: KuaiRand, at most 3 epochs, 1 seed. Full: both data sets, epochs as shipped, 5
seeds. `--models` takes any of `tfmtl models`. Directories below `--raw` are those of
`RAW`. Figures are kept as they come, and a call with the same `--out` continues.
"""

from __future__ import annotations

import pathlib
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmarks.reproduction import plus_minus, t_interval
from benchmarks.trials import (
    Document,
    Record,
    arguments,
    make_dataset,
    origin,
    shipped,
    study,
    table,
    with_model,
)
from tfmtl.models import MODELS

RAW = {"kuairand": "kuairand-pure", "movielens-1m": "movielens-1m"}
"""Data set to its folder; `--raw` may also be the folder itself."""
TASKS = {"kuairand": ("click", "long_view", "like"), "movielens-1m": ("high", "top")}
SIMPLE = ("SingleTask", "SingleScenario", "SharedBottom")
COMPARED = (*SIMPLE, "MMoE", "PLE", "STAR", "PEPNet", "M3oE", "HiNet", "ExpertFusion")
CONTROL = "SingleTask"
ENOUGH = 50
"""Positives, and negatives, from which on a cell is in the second mean."""
REDUCED_EPOCHS = 3
CONFIGS: dict[str, dict[str, Any]] = {"ExpertFusion": {"match": "mmoe", "match_to": {}}}
"""What a model needs beside its defaults; `match_to: {}` is MMoE's defaults."""


def base_document(data: str, full: bool) -> Document:
    """The shipped experiment with the study's tasks, chosen by mean cell AUC."""
    document = shipped(data)
    dataset = document["dataset"]
    dataset["tasks"] = [t for t in dataset["tasks"] if t["name"] in TASKS[data]]
    document["training"] |= {"monitor": "mean_cell/auc", "patience": 2}
    if not full:
        document["training"]["epochs"] = REDUCED_EPOCHS
    return document


def model_document(base: Document, model: str) -> Document:
    """The experiment of one line of the table."""
    config = dict(CONFIGS.get(model, {}))
    interaction = MODELS[model].Config.model_fields["interaction"].annotation
    if "dot" in getattr(interaction, "__args__", ()):
        config["interaction"] = "dot"
    return with_model(base, model, config)


def raw_folder(raw: pathlib.Path, data: str) -> pathlib.Path:
    """The publisher's files of a data set."""
    below = raw / RAW[data]
    return below if below.is_dir() else raw


Cell = tuple[str, str]
Good = dict[str, dict[int, Record]]


def by_model(trials: Iterable[Record]) -> Good:
    """Model to seed to trial, of those that ended well."""
    found: Good = {}
    for trial in trials:
        if "failed" not in trial:
            found.setdefault(trial["model"], {})[trial["seed"]] = trial
    return found


def cells(trial: Record) -> dict[Cell, Record]:
    """(task, scenario) to what the test split says of it, where AUC is defined."""
    return {
        (task, scenario): cell
        for task, values in trial["tasks"].items()
        for scenario, cell in values["scenarios"].items()
        if cell["auc"] is not None
    }


def mean_cell_auc(trial: Record, least: int = 0) -> float:
    """Mean over the cells with at least so many positives and negatives."""
    found = [
        cell["auc"]
        for cell in cells(trial).values()
        if min(cell["positives"], cell["rows"] - cell["positives"]) >= least
    ]
    return statistics.mean(found)


def gains(good: Good, model: str, control: str, least: int = 0) -> list[float]:
    """Mean cell AUC less the control's, of the seeds that both have."""
    other = good.get(control, {})
    return [
        mean_cell_auc(trial, least) - mean_cell_auc(other[seed], least)
        for seed, trial in good[model].items()
        if seed in other
    ]


def with_interval(values: Sequence[float]) -> str:
    """A mean gain with its 95 % t interval over seeds."""
    if not values:
        return "-"
    text = f"{statistics.mean(values):+.4f}"
    if len(values) == 1:
        return text
    low, high = t_interval(values)
    return f"{text} ({low:+.4f} to {high:+.4f})"


def summary(trials: Sequence[Record]) -> str:
    """A line a model: means, gain, costs; failures among them."""
    good = by_model(trials)
    head = [
        "model",
        "mean cell AUC",
        f"cells with {ENOUGH} positives",
        f"gain over {CONTROL}",
        "mean task AUC",
        "seeds",
        "parameters",
        "of these in networks",
        "MACs",
        "s",
    ]
    lines = []
    for model in dict.fromkeys(t["model"] for t in trials):
        runs = list(good.get(model, {}).values())
        if runs:
            lines.append(
                [
                    model,
                    plus_minus([mean_cell_auc(r) for r in runs]),
                    plus_minus([mean_cell_auc(r, ENOUGH) for r in runs]),
                    "-"
                    if model == CONTROL
                    else with_interval(gains(good, model, CONTROL)),
                    plus_minus([r["mean_task_auc"] for r in runs]),
                    str(len(runs)),
                    *(f"{runs[0][k]:,}" for k in ("parameters", "dense_parameters")),
                    f"{runs[0]['macs']:,}",
                    f"{statistics.mean(r['seconds'] for r in runs):.0f}",
                ]
            )
        failed = [t for t in trials if t["model"] == model and "failed" in t]
        if failed:
            reason = failed[0]["failed"].replace("|", "\\|").replace("\n", " ")
            seeds = ", ".join(str(t["seed"]) for t in failed)
            said = f"failed (seeds {seeds}): {reason}"
            lines.append([model, said, *[""] * (len(head) - 2)])
    return table(head, lines)


def per_cell(good: Good, task: str) -> str:
    """AUC of each scenario in one task, mean ± s.d. over seeds."""
    any_run = next(iter(next(iter(good.values())).values()))
    places = [s for t, s in cells(any_run) if t == task]
    lines = []
    for model, runs in good.items():
        of_cells = [
            plus_minus([r["tasks"][task]["scenarios"][s]["auc"] for r in runs.values()])
            for s in places
        ]
        whole = plus_minus([r["tasks"][task]["auc"] for r in runs.values()])
        lines.append([model, *of_cells, whole])
    values = any_run["tasks"][task]
    of_cells = [values["scenarios"][s] for s in places] + [values]
    halves = [
        c["auc_ci"] and f"± {(c['auc_ci'][1] - c['auc_ci'][0]) / 2:.3f}"
        for c in of_cells
    ]
    lines.append(["95 % over test users", *(h or "-" for h in halves)])
    lines.append(
        ["positives", *(f"{c['positives']:,} of {c['rows']:,}" for c in of_cells)]
    )
    return table([task, *places, "all rows"], lines)


def findings(good: Good) -> list[str]:
    """The rankings, and where the simple models win."""
    lines = []
    for least in (0, ENOUGH):
        lines += _ranking(good, least)
        best = {
            cell: model
            for cell, model in _winners(good).items()
            if cell in _cells_of(good, least)
        }
        simple = [f"{t} in {s} ({m})" for (t, s), m in best.items() if m in SIMPLE]
        lines.append(
            f"- A simple model is best in {len(simple)} of {len(best)} {_kind(least)}"
            f"{': ' if simple else ''}{', '.join(simple)}."
        )
    return lines


def _kind(least: int) -> str:
    return f"cells with {least} positives" if least else "cells"


def _ranking(good: Good, least: int) -> list[str]:
    """Who is above whom by the mean AUC of the cells with so many positives."""
    means = {
        m: statistics.mean(mean_cell_auc(t, least) for t in r.values())
        for m, r in good.items()
    }
    ranked = sorted(means, key=lambda m: -means[m])
    lines = [f"- By the mean AUC of the {_kind(least)}: {', '.join(ranked)}."]
    for simple in (s for s in SIMPLE if s in ranked):
        under = [m for m in ranked[ranked.index(simple) + 1 :] if m not in SIMPLE]
        above = [m for m in ranked[: ranked.index(simple)] if m not in SIMPLE]
        lost = [m for m in above if _surely_above(gains(good, m, simple, least))]
        won = [m for m in under if _surely_above(gains(good, simple, m, least))]
        lines.append(
            f"- {simple}: above {', '.join(under) or 'none'} (beyond the seeds' "
            f"spread: {', '.join(won) or 'none'}); below {', '.join(above) or 'none'} "
            f"(beyond it: {', '.join(lost) or 'none'})."
        )
    return lines


def _cells_of(good: Good, least: int) -> set[Cell]:
    """Cells with at least so many positives and negatives."""
    trial = next(iter(next(iter(good.values())).values()))
    return {
        cell
        for cell, of in cells(trial).items()
        if min(of["positives"], of["rows"] - of["positives"]) >= least
    }


def _surely_above(values: Sequence[float]) -> bool:
    return bool(values) and t_interval(values)[0] > 0


def _winners(good: Good) -> dict[Cell, str]:
    """Cell to the model with the best mean over seeds."""
    means: dict[Cell, dict[str, float]] = {}
    for model, runs in good.items():
        for cell in cells(next(iter(runs.values()))):
            task, scenario = cell
            values = [
                r["tasks"][task]["scenarios"][scenario]["auc"] for r in runs.values()
            ]
            means.setdefault(cell, {})[model] = statistics.mean(values)
    return {cell: max(by, key=lambda m: by[m]) for cell, by in means.items()}


def figure(found: Mapping[str, Sequence[Record]], path: pathlib.Path) -> None:
    """Mean cell AUC of every seed, and the gain over the control in each cell."""
    import matplotlib

    matplotlib.use("Agg")
    import numpy as np
    from matplotlib import pyplot

    drawn = {data: by_model(trials) for data, trials in found.items()}
    drawn = {data: good for data, good in drawn.items() if good}
    if not drawn:
        return
    panels, axes = pyplot.subplots(
        len(drawn),
        2,
        figsize=(14, 4.2 * len(drawn)),
        squeeze=False,
        gridspec_kw={"width_ratios": [1, 2.6]},
    )
    for (left, right), (data, good) in zip(axes, drawn.items()):
        names = list(good)
        for place, name in enumerate(names):
            values = [mean_cell_auc(r) for r in good[name].values()]
            left.plot(values, [place] * len(values), ".", color="C0", alpha=0.6)
            left.plot(statistics.mean(values), place, "|", color="black", ms=12)
        left.set_yticks(range(len(names)), names)
        left.invert_yaxis()
        left.locator_params(axis="x", nbins=5)
        left.set_xlabel("mean cell AUC, test")
        left.set_title(data)
        left.grid(axis="x", alpha=0.3)
        if CONTROL not in good:
            right.set_axis_off()
            continue
        places = list(cells(next(iter(good[CONTROL].values()))))
        mean = {
            name: np.mean(
                [[cells(r)[cell]["auc"] for cell in places] for r in runs.values()],
                axis=0,
            )
            for name, runs in good.items()
        }
        gain = np.array([mean[name] - mean[CONTROL] for name in names])
        right.imshow(gain, cmap="RdBu", vmin=-0.05, vmax=0.05, aspect="auto")
        for i, j in np.ndindex(*gain.shape):
            colour = "white" if abs(gain[i, j]) > 0.035 else "black"
            text = f"{gain[i, j]:+.3f}"
            right.text(j, i, text, color=colour, ha="center", va="center", fontsize=7)
        labels = [f"{t}\n{s}".replace("_", "\n") for t, s in places]
        right.set_xticks(range(len(places)), labels, fontsize=8)
        right.set_yticks([])
        right.set_title(f"gain in test AUC over {CONTROL}, mean over seeds")
    panels.tight_layout()
    panels.savefig(path)
    pyplot.close(panels)


def text_of(data: str, trials: Sequence[Record]) -> str:
    """Tables and findings of a data set."""
    good = by_model(trials)
    parts = [f"{data}, seeds {sorted({t['seed'] for t in trials})}.", summary(trials)]
    if good:
        parts += [per_cell(good, task) for task in TASKS[data]]
        parts.append("\n".join(findings(good)))
    return "\n\n".join(parts)


def main() -> None:
    """Runs the study; prints the tables and writes them beside the figure."""
    parser = arguments(__doc__ or "", "1 reduced, 5 full")
    parser.add_argument("--data", nargs="+", choices=list(RAW), help="only these")
    options = parser.parse_args()
    models = options.models or list(COMPARED)
    unknown = sorted({*models} - {*MODELS})
    if unknown:
        parser.error(f"--models: {unknown}; there are {sorted(MODELS)}")
    size = "full" if options.full else "reduced"
    found: dict[str, list[Record]] = {}
    with study(options, "multi_scenario") as to:
        for data in options.data or (list(RAW) if options.full else ["kuairand"]):
            base = base_document(data, options.full)
            raw = raw_folder(options.raw, data)
            dataset = make_dataset(base, data, raw, to.work)
            trials = [
                to.trial(f"{data}, {size}", m, model_document(base, m), dataset, seed)
                for seed in range(options.seeds or (5 if options.full else 1))
                for m in models
            ]
            found[data] = [t for t in trials if t is not None]
        tables = [text_of(data, trials) for data, trials in found.items()]
        every = [t for trials in found.values() for t in trials]
        text = "\n\n".join([*tables, f"{origin(every)}."]) + "\n"
        to.ledger.write(table=text)
        figure(found, options.out / "multi_scenario.svg")
    print(text, end="")


if __name__ == "__main__":
    main()
