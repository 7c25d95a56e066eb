"""How much longer TensorRT-LLM took in the middle of 2024 than its kernels of today would.

Its own pages of performance tell (``docs/source/performance/perf-overview.md``), whose rows of 0.11 to 0.13 no table
here has. At maximum load on Hopper, predicted tokens/s over those of the page, geometric means:

* 0.11 and 0.12 (July and August 2024), FP8, two cards a replica, H100 and H200, four lengths: 1.19 for Mixtral 8x7B
  and 1.19 for Llama 2 70B (28 rows from 1.02 to 1.43; 0.11 1.15, 0.12 1.25). Those of 0.10 are slower again by a third
  to a half for Mixtral, whose experts got new kernels after it;
* 0.13 (September 2024), 16 bits, H100, six lengths: 1.16 for Llama 3.1 8B on one card, 1.34 for 70B on four.

MLPerf's round v4.1 (August 2024) ran TensorRT 10.1 to 10.2, between 0.11 (10.1) and 0.12 (10.3), at loads that are
as high. Of steps with few sequences, which the published table of 0.14 is of, the pages say nothing.
"""

from __future__ import annotations

from windtunnel.specs.catalogue import generation_of
from windtunnel.validation.mlperf_settings import V41

MIDDLE_OF_2024 = 1.19
"""Seconds of a step in 0.11 and 0.12 over seconds of today's kernels."""


def seconds_factor(source: str, chip: str) -> float:
    """What steps of an MLPerf round on a chip take over those of today's kernels; 1 where nothing was published."""
    return MIDDLE_OF_2024 if V41 in source and generation_of(chip) == "Hopper" else 1.0
