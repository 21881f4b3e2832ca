"""How much of the log below us a user sees."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Iterator

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


def import_tensorflow() -> None:
    """Imports TensorFlow without the lines it writes before its log level holds."""
    with _silent_stderr(not is_verbose() and "tensorflow" not in sys.modules):
        import tfmtl._keras

        tfmtl._keras.tf.config.list_physical_devices()


@contextlib.contextmanager
def _silent_stderr(wanted: bool) -> Iterator[None]:
    """Sends file descriptor 2 to nowhere; Python exceptions pass as ever."""
    if not wanted:
        yield
        return
    sys.stderr.flush()
    saved = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nowhere)
