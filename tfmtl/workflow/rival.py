"""The honest control: a gradient balancer, tuned with the budget that the weights had.

A second search in a folder of the first: the same experiment, space, goal and oracle,
but the balancer and its settings, which are a choice of gradient balancers.
"""

from __future__ import annotations

import dataclasses

from tfmtl.errors import ConfigError
from tfmtl.schema.experiment import Experiment
from tfmtl.schema.tuning import TuningSpec
from tfmtl.tuning.goals import Goal
from tfmtl.tuning.pareto import best_records
from tfmtl.tuning.records import read_records
from tfmtl.workflow.again import CONTROLS, Candidate, with_balancer
from tfmtl.workflow.running import run_trials
from tfmtl.workflow.search_directory import SearchDirectory
from tfmtl.workflow.search_setup import Processes, Search

RIVAL = "rival"
_BALANCER = "balancer."
_CLASS = "balancer.class"


def rival_experiment(experiment: Experiment, trials: int) -> Experiment | None:
    """The experiment with the rival's search in it.

    Args:
        experiment: Has a search whose spec names rivals.
        trials: That the search had.

    Returns:
        None where nothing is left to search: one rival, in a space of loss weights.
    """
    spec = experiment.tuning
    assert spec is not None
    names = spec.rivals(experiment.dataset.task_names)
    left = {
        path: dimension.model_dump(mode="json")
        for path, dimension in spec.space.items()
        if not any(p.startswith(_BALANCER) for p in (path, *spec.conditions(path)))
    }
    if len(names) > 1:
        left[_CLASS] = {"type": "choice", "values": list(names)}
    if not left:
        return None
    # Hyperband's brackets are as many as the search's own.
    same = spec.max_trials if spec.oracle == "hyperband" else trials
    budget = spec.rival.trials or same
    section = {
        **spec.model_dump(mode="json"),
        "space": left,
        # A grid that is cut short would try few values of the first dimensions.
        "oracle": "random" if spec.oracle == "grid" else spec.oracle,
        "max_trials": budget,
        "controls": [],
        "seeds": 0,
        "rival": {"trials": 0},
    }
    changed = with_balancer(experiment, names[0])
    return changed.model_copy(update={"tuning": TuningSpec.model_validate(section)})


def find_rivals(search: Search, goal: Goal, trials: int) -> list[Candidate]:
    """Searches, or goes on with it, and takes the best trials.

    Args:
        search: That the rival is of.
        goal: Its bounds are numbers.
        trials: That the search had.

    Returns:
        None where there is to be no rival, or where all of its trials failed.
    """
    spec, folder = search.spec, search.path / CONTROLS
    names = spec.rivals(search.experiment.dataset.task_names)
    if not names:
        return []
    experiment = rival_experiment(search.experiment, trials)
    if experiment is None:
        plain = with_balancer(search.experiment, names[0])
        label, place = f"{names[0]}, rival", folder / f"rival-{names[0]}"
        return [Candidate(label, "rival", None, plain, place, 0, 0.0)]
    inner = _begun(search, experiment)
    said = f"the rival: {', '.join(names)}"
    search.listener.stage(said, inner.spec.budget)
    run_trials(inner, goal)
    inner.directory.write(finished=True)
    records = read_records(inner.path)
    usable = [record for record in records if record.usable]
    if not usable:
        reasons = "; ".join(sorted({record.reason for record in records}))
        search.listener.note(f"there is no rival, every trial failed: {reasons}")
    spent = sum(record.seconds for record in records if record.reused is None)
    found = []
    for record in best_records(usable, goal, spec.top):
        document = inner.space.apply(record.values)
        own = Experiment.model_validate(document)
        found.append(
            Candidate(
                label=f"{own.balancer.class_name}, rival {record.trial}",
                kind="rival",
                trial=None,
                experiment=own,
                folder=folder / f"rival-{record.trial}",
                trials=len(records),
                spent=spent,
            )
        )
    return found


def _begun(search: Search, experiment: Experiment) -> Search:
    """The rival's search, its directory made or found."""
    directory = SearchDirectory(search.path / RIVAL)
    who = search.processes
    # Workers of other machines left when the first search was over.
    alone = Processes() if who.part == "chief" else who
    inner = dataclasses.replace(
        search, experiment=experiment, directory=directory, processes=alone
    )
    asked = inner.identity()
    try:
        directory.begin(experiment, asked, resume=True, overwrite=False)
    except ConfigError:
        # Other balancers, which the rest of the search did not depend on.
        directory.begin_anew(experiment, asked, search.listener)
    baseline = search.directory.asked().get("baseline")
    directory.write(baseline=baseline)
    return inner
