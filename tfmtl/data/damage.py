"""What TensorFlow says about damaged record files -> what a user can act on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from tfmtl._keras import tf
from tfmtl.data.read import Reader
from tfmtl.errors import DataError


@contextlib.contextmanager
def damage_named(reader: Reader) -> Iterator[None]:
    """Names the data set where its records cannot be read inside the block.

    Args:
        reader: Whose batches the block consumes.

    Raises:
        DataError: A record file is missing, damaged or shorter than dataset.json says.
    """
    try:
        yield
    except tf.errors.DataLossError as error:
        raise _named(reader, "a record file is damaged", error) from error
    except tf.errors.NotFoundError as error:
        raise _named(reader, "a record file is missing", error) from error
    except tf.errors.OutOfRangeError as error:
        raise _named(
            reader, "the record files hold fewer rows than dataset.json says", error
        ) from error
    except tf.errors.InvalidArgumentError as error:
        if "ParseExample" not in str(error):
            raise
        raise _named(
            reader, "a record does not hold what dataset.json says", error
        ) from error


def _named(reader: Reader, what: str, error: Exception) -> DataError:
    # A graph's error begins with the Python stack that built the graph.
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    detail = next((x for x in reversed(lines) if not x.startswith("[[")), "")
    detail = detail.rpartition("Name: <unknown>, ")[2]
    return DataError(
        f"the split {'+'.join(reader.splits)} of the data set "
        f"{str(reader.directory)!r} cannot be read: {what} ({detail[:300]}). Run "
        "`tfmtl preprocess` again"
    )
