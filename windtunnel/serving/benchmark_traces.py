"""Traffic from what load generators wrote: one object holds a whole run.

* vLLM: `vllm bench serve --save-result --save-detailed` (input_lens, output_lens, start_times).
* guidellm: its report (benchmarks → requests → successful; tokens and start_time of each).
* aiperf: a row a request (metadata.request_start_ns, metrics.input_sequence_length and output_sequence_length).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import repeat
from typing import cast

Row = Mapping[str, object]
Call = tuple[float, object, object]
"""When it was sent in s, prompt tokens, output tokens."""
_PROMPT = ("prompt_tokens", "input_tokens")
_OUTPUT = ("output_tokens", "completion_tokens")


def calls(row: Row) -> list[Callable[[], Call]] | None:
    """The calls of a run, each read when asked, or None where it is none. Raises KeyError or ValueError: no run."""
    if "input_lens" in row:
        return list(_vllm(row))
    if "benchmarks" in row:
        runs = cast("list[Mapping[str, Mapping[str, list[Row]]]]", row["benchmarks"])
        return [partial(_guidellm, one) for run in runs for one in run["requests"]["successful"]]
    if "metrics" in row and "metadata" in row:
        return [partial(_aiperf, row)]
    return None


def _vllm(row: Row) -> Iterator[Callable[[], Call]]:
    prompts, outputs = (cast("list[object]", row[name]) for name in ("input_lens", "output_lens"))
    starts = cast("list[float] | None", row.get("start_times"))
    if len(prompts) != len(outputs):
        raise ValueError(f"{len(prompts)} input_lens and {len(outputs)} output_lens")
    for at, prompt, output in zip(starts or repeat(0.0), prompts, outputs, strict=False):
        if prompt and output:  # calls that failed have none
            yield partial(_timed, at, prompt, output)


def _timed(at: object, prompt: object, output: object) -> Call:
    return float(cast("float", at)), prompt, output


def _guidellm(one: Row) -> Call:
    start = one.get("start_time", one.get("request_start_time"))
    if start is None:
        raise KeyError("start_time")
    return _timed(start, _first(one, _PROMPT), _first(one, _OUTPUT))


def _aiperf(row: Row) -> Call:
    metadata, metrics = cast("Row", row["metadata"]), cast("Mapping[str, Row]", row["metrics"])
    at_s = float(cast("float", metadata["request_start_ns"])) / 1e9
    return at_s, metrics["input_sequence_length"]["value"], metrics["output_sequence_length"]["value"]


def _first(row: Row, names: tuple[str, ...]) -> object:
    for name in names:
        if name in row:
            return row[name]
    raise KeyError(names[0])
