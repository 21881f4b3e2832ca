"""How much of the log below us a user sees."""

from __future__ import annotations

import logging
import os
import sys
import warnings

_OURS = r"(tfmtl|pipeline|serving)\b"


def configure(*, verbose: bool) -> None:
    """Shows our warnings, and everything with `verbose`.

    Args:
        verbose: Show the information of TensorFlow, Beam and us.
    """
    level = logging.INFO if verbose else logging.ERROR
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger().setLevel(level)
    for name in ("tfmtl", "pipeline", "serving"):
        logging.getLogger(name).setLevel(logging.INFO if verbose else logging.WARNING)
    if verbose:
        os.environ["TF_CPP_MIN_LOG_LEVEL"] = "0"
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
        warnings.filterwarnings("default", module=_OURS)


def is_verbose() -> bool:
    """Whether `--verbose` was given."""
    return logging.getLogger().getEffectiveLevel() <= logging.INFO
