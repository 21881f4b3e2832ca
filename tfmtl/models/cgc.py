"""CGC: experts of each task's own beside shared ones.

H. Tang, J. Liu, M. Zhao, X. Gong, "Progressive Layered Extraction (PLE): A Novel
Multi-Task Learning (MTL) Model for Personalized Recommendations", RecSys 2020.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from tfmtl.errors import ConfigError
from tfmtl.layers.embedding import Embedded
from tfmtl.layers.extraction import Extraction
from tfmtl.models.base import ModelConfig, MultiTaskModel

Count = Annotated[int, Field(ge=0)]


class CGCConfig(ModelConfig):
    """Settings of CGC."""

    task_experts: Count | dict[str, Count] = 2
    """Experts of each task's own: one number for all, or one for each task."""
    shared_experts: Count = 2
    """Experts that all tasks share."""
    expert_units: tuple[int, ...] = Field(default=(128, 64), min_length=1)
    """Widths of each expert's layers."""
    gate_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of its experts that a gate loses in training."""


class CGC(MultiTaskModel):
    """Customized gate control, shared and task experts apart.

    S^t(x) = [E_t,1(x); ...; E_t,m_t(x); E_s,1(x); ...; E_s,m_s(x)]    equation 3
    w^t(x) = softmax(W_g^t x)             linear, no bias; equation 2
    g^t(x) = w^t(x) S^t(x)                equation 1
    s_t    = h_t(g^t(x))                  equation 4

    The experts of other tasks are out of reach. Without task experts it is MMoE;
    without shared ones, tasks share the embeddings alone. It is PLE with one level.
    """

    Config = CGCConfig
    citation = (
        "H. Tang et al., Progressive Layered Extraction (PLE): A Novel Multi-Task "
        "Learning Model for Personalized Recommendations, RecSys 2020"
    )
    config: CGCConfig

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        config = self.config
        names = [t.name for t in self.tasks]
        self.extraction = Extraction(
            names,
            count_task_experts(names, config.task_experts, config.shared_experts),
            config.shared_experts,
            config.expert_units,
            seed=self.seed_for("extraction"),
            dropout=config.dropout,
            gate_dropout=config.gate_dropout,
            name="extraction",
        )
        self.towers = self.make_towers()

    def represent(self, x: Embedded, training: bool) -> Any:
        level = self.extraction(x.flat, training=training)
        self.keep_for_cut(x.flat)
        if self.config.shared_experts:
            self.keep_for_cut(level.shared)
        self.keep_for_inspection(gates=level.gates, experts=level.experts)
        return level.mixed  # [B, T, H]


def count_task_experts(
    tasks: list[str], setting: int | dict[str, int], shared: int
) -> list[int]:
    """Experts of each task's own.

    Args:
        tasks: Names of the tasks.
        setting: `task_experts` of the configuration.
        shared: Shared experts.

    Raises:
        ConfigError: The setting names other tasks, or leaves one without any expert.
    """
    if isinstance(setting, int):
        setting = dict.fromkeys(tasks, setting)
    if set(setting) != set(tasks):
        raise ConfigError(
            "`model.config.task_experts` must be a number, or name every task once. "
            f"Received: {sorted(setting)}; tasks: {tasks}"
        )
    for task in tasks:
        if setting[task] + shared == 0:
            raise ConfigError(
                "`model.config.task_experts` and `shared_experts` must leave every "
                f"task an expert. Received: 0 and 0 for {task!r}"
            )
    return [setting[task] for task in tasks]
