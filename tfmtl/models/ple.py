"""PLE: levels of task and shared experts that separate progressively.

H. Tang, J. Liu, M. Zhao, X. Gong, "Progressive Layered Extraction (PLE): A Novel
Multi-Task Learning (MTL) Model for Personalized Recommendations", RecSys 2020.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from tfmtl.layers.embedding import Embedded
from tfmtl.layers.extraction import Extraction
from tfmtl.models.base import ModelConfig, MultiTaskModel
from tfmtl.models.cgc import Count, count_task_experts

Widths = Annotated[tuple[int, ...], Field(min_length=1)]


class PLEConfig(ModelConfig):
    """Settings of PLE."""

    task_experts: Count | dict[str, Count] = 2
    """Experts of each task's own in a level: one number, or one for each task."""
    shared_experts: Count = 2
    """Experts of a level that all tasks share."""
    expert_units: tuple[Widths, ...] = Field(default=((128,), (64,)), min_length=1)
    """For each level, the widths of its experts' layers; the paper's have one."""
    gate_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of its experts that a gate loses in training."""


class PLE(MultiTaskModel):
    """Progressive layered extraction, any number of levels.

    g^{t,0} = g^{s,0} = x
    S^{t,j} = [task t's experts of g^{t,j-1}; shared experts of g^{s,j-1}]
    g^{t,j} = softmax(W^{t,j} g^{t,j-1}) S^{t,j}           equation 5
    S^{s,j} = [all tasks' experts; shared experts]
    g^{s,j} = softmax(W^{s,j} g^{s,j-1}) S^{s,j}           j < N
    s_t     = h_t(g^{t,N})                                 equation 6

    The last level has no shared gate: nothing would read it. Below, all tasks reach all
    experts through g^s, which makes them shared; task t alone reaches its experts of
    the last level and its gates of the last two. Gates select by the level's own input,
    where some public code uses x at every level; a task's gate never sees another
    task's experts. Weights of the losses that change by epoch (section 4.3) belong to
    the balancer. With one level it is CGC.
    """

    Config = PLEConfig
    citation = (
        "H. Tang et al., Progressive Layered Extraction (PLE): A Novel Multi-Task "
        "Learning Model for Personalized Recommendations, RecSys 2020"
    )
    config: PLEConfig

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        config = self.config
        names = [t.name for t in self.tasks]
        shared = config.shared_experts
        last = len(config.expert_units) - 1
        # Without shared experts nothing reads the shared stream: tasks stay apart.
        self._first_own = max(last - 1, 0) if shared else 0
        self.levels = [
            Extraction(
                names,
                count_task_experts(names, config.task_experts, shared),
                shared,
                units,
                shared_gate=shared > 0 and j < last,
                own_experts=shared == 0 or j == last,
                own_gates=j >= self._first_own,
                seed=self.seed_for("level", j),
                dropout=config.dropout,
                gate_dropout=config.gate_dropout,
                name=f"level_{j + 1}",
            )
            for j, units in enumerate(config.expert_units)
        ]
        self.towers = self.make_towers()

    def represent(self, x: Embedded, training: bool) -> Any:
        streams = x.flat
        for j, layer in enumerate(self.levels):
            level = layer(streams, training=training)
            self.keep_for_inspection(
                **{
                    f"level_{j + 1}_gates": level.gates,
                    f"level_{j + 1}_experts": level.experts,
                }
            )
            if j == self._first_own:
                self.keep_for_cut(streams)
                if not layer.own_experts:
                    experts = (level.own, level.shared)
                    self.keep_for_cut(*(e for e in experts if e is not None))
            streams = level.mixed  # [B, T + 1, H], [B, T, H] of the last
        if self.config.shared_experts:
            self.keep_for_cut(level.shared)
        return streams
