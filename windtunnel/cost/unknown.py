"""Operations without a model: priced from their bytes and FLOPs as a streaming kernel, always marked assumed.

Formula: ``stream.py``. The interval is a factor of three both ways: the bytes of inputs and outputs say
nothing about passes or dependent steps inside.
"""

from __future__ import annotations

from windtunnel.cost.batch import Batch
from windtunnel.cost.fit import Fit
from windtunnel.cost.kernel_time import Times
from windtunnel.cost.stream import times as stream_times
from windtunnel.specs.schema import Chip


def times(batch: Batch, chip: Chip, fit: Fit) -> Times:
    """Times of unknown works."""
    return stream_times(batch, chip, fit)
