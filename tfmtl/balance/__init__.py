"""Balancers: how the losses or gradients of the tasks are weighed."""

from __future__ import annotations

from tfmtl.balance.adatask import AdaTask
from tfmtl.balance.aligned_mtl import AlignedMTL
from tfmtl.balance.base import (
    Balancer,
    CutCombination,
    GradientCombination,
    GradientWeighting,
    LossWeighting,
    TaskInfo,
    TaskStats,
)
from tfmtl.balance.cagrad import CAGrad
from tfmtl.balance.config import BalancerConfig, CombinationConfig, GradientConfig
from tfmtl.balance.db_mtl import DBMTL
from tfmtl.balance.dcb import DCB
from tfmtl.balance.dwa import DWA
from tfmtl.balance.famo import FAMO
from tfmtl.balance.fixed import Equal, Fixed
from tfmtl.balance.geometric_loss import GeometricLoss
from tfmtl.balance.graddrop import GradDrop
from tfmtl.balance.gradnorm import GradNorm
from tfmtl.balance.gradvac import GradVac
from tfmtl.balance.imtl import IMTL, IMTLG
from tfmtl.balance.imtl_l import ImtlL
from tfmtl.balance.log_loss import LogLoss
from tfmtl.balance.metabalance import MetaBalance
from tfmtl.balance.mgda import MGDA, MGDAUB
from tfmtl.balance.nash_mtl import NashMTL
from tfmtl.balance.pcgrad import PCGrad
from tfmtl.balance.pe_ltr import PELTR
from tfmtl.balance.random_weights import RandomWeights
from tfmtl.balance.stch import STCH
from tfmtl.balance.uncertainty import Uncertainty

BALANCERS: dict[str, type[Balancer]] = {
    "Equal": Equal,
    "Fixed": Fixed,
    # From gradients.
    "Aligned-MTL": AlignedMTL,
    "CAGrad": CAGrad,
    "DB-MTL": DBMTL,
    "DCB": DCB,
    "GradDrop": GradDrop,
    "GradVac": GradVac,
    "IMTL": IMTL,
    "IMTL-G": IMTLG,
    "MGDA": MGDA,
    "MGDA-UB": MGDAUB,
    "MetaBalance": MetaBalance,
    "Nash-MTL": NashMTL,
    "PCGrad": PCGrad,
    "PE-LTR": PELTR,
    "Uncertainty": Uncertainty,
    "DWA": DWA,
    "GradNorm": GradNorm,
    "IMTL-L": ImtlL,
    "FAMO": FAMO,
    "STCH": STCH,
    "GeometricLoss": GeometricLoss,
    "LogLoss": LogLoss,
    "RandomWeights": RandomWeights,
    "AdaTask": AdaTask,
}
"""Name in an experiment file to class."""


def catalogue() -> list[dict[str, str]]:
    """Name, one-line summary, citation, protocol and cost of each balancer."""
    return [
        {
            "name": name,
            "summary": (balancer.__doc__ or "").partition("\n")[0],
            "citation": balancer.citation,
            "protocol": balancer.protocol,
            "backward_passes": balancer.backward_passes,
        }
        for name, balancer in BALANCERS.items()
    ]


__all__ = [
    "BALANCERS",
    "DBMTL",
    "DCB",
    "DWA",
    "FAMO",
    "IMTL",
    "IMTLG",
    "MGDA",
    "MGDAUB",
    "PELTR",
    "STCH",
    "AdaTask",
    "AlignedMTL",
    "Balancer",
    "BalancerConfig",
    "CAGrad",
    "CombinationConfig",
    "CutCombination",
    "Equal",
    "Fixed",
    "GeometricLoss",
    "GradDrop",
    "GradNorm",
    "GradVac",
    "GradientCombination",
    "GradientConfig",
    "GradientWeighting",
    "ImtlL",
    "LogLoss",
    "LossWeighting",
    "MetaBalance",
    "NashMTL",
    "PCGrad",
    "RandomWeights",
    "TaskInfo",
    "TaskStats",
    "Uncertainty",
    "catalogue",
]
