"""Architectures: one file each."""

from __future__ import annotations

from tfmtl.models.aitm import AITM
from tfmtl.models.base import ModelConfig, MultiTaskModel
from tfmtl.models.cgc import CGC
from tfmtl.models.cnn_max import CNNMax
from tfmtl.models.cross_stitch import CrossStitch
from tfmtl.models.dbmtl import DBMTL
from tfmtl.models.deep_mcp import DeepMCP
from tfmtl.models.dssm import DSSM
from tfmtl.models.dupn import DUPN
from tfmtl.models.esm2 import ESM2
from tfmtl.models.esmm import ESMM
from tfmtl.models.expert_fusion import ExpertFusion
from tfmtl.models.hinet import HiNet
from tfmtl.models.m3oe import M3oE
from tfmtl.models.mmoe import MMoE
from tfmtl.models.mmoe_esmm import MMoEESMM
from tfmtl.models.moe import MoE
from tfmtl.models.mran import MRAN
from tfmtl.models.nmtr import NMTR
from tfmtl.models.omoe import OMoE
from tfmtl.models.pepnet import PEPNet
from tfmtl.models.ple import PLE
from tfmtl.models.rnr import RnR
from tfmtl.models.shared_bottom import SharedBottom
from tfmtl.models.single_scenario import SingleScenario
from tfmtl.models.single_task import SingleTask
from tfmtl.models.soft_sharing import SoftSharing
from tfmtl.models.star import STAR
from tfmtl.models.stem import STEM
from tfmtl.models.watch_next import WatchNext
from tfmtl.models.wide import Wide
from tfmtl.models.wide_deep import WideDeep

MODELS: dict[str, type[MultiTaskModel]] = {
    "AITM": AITM,
    "CGC": CGC,
    "CNNMax": CNNMax,
    "CrossStitch": CrossStitch,
    "DBMTL": DBMTL,
    "DSSM": DSSM,
    "DUPN": DUPN,
    "DeepMCP": DeepMCP,
    "ESM2": ESM2,
    "ESMM": ESMM,
    "ExpertFusion": ExpertFusion,
    "HiNet": HiNet,
    "M3oE": M3oE,
    "MMoE": MMoE,
    "MMoE+ESMM": MMoEESMM,
    "MRAN": MRAN,
    "MoE": MoE,
    "NMTR": NMTR,
    "OMoE": OMoE,
    "PEPNet": PEPNet,
    "PLE": PLE,
    "RnR": RnR,
    "STAR": STAR,
    "STEM": STEM,
    "SharedBottom": SharedBottom,
    "SingleScenario": SingleScenario,
    "SingleTask": SingleTask,
    "SoftSharing": SoftSharing,
    "WatchNext": WatchNext,
    "Wide": Wide,
    "WideDeep": WideDeep,
}
"""Name in an experiment file to class."""


def catalogue() -> list[dict[str, str]]:
    """Name, one-line summary and citation of each architecture."""
    return [
        {
            "name": name,
            "summary": (model.__doc__ or "").partition("\n")[0],
            "citation": model.citation,
        }
        for name, model in MODELS.items()
    ]


__all__ = ["MODELS", "ModelConfig", "MultiTaskModel", "catalogue"]
