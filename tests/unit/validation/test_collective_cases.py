"""Published tables of collectives: what a row says about how it was measured decides what is predicted."""

from __future__ import annotations

from pathlib import Path

from windtunnel.validation.predict_collectives import predict_collectives
from windtunnel.validation.tables import read_table

HEAD = (
    "row_id,gpu,num_gpus,gpus_per_node,inter_node_network,measured_with,collective,algorithm,"
    "message_bytes,latency_seconds"
)


def predicted(folder: Path, *rows: str) -> list[tuple[float, float, float]]:
    """Low, middle and high of every row, in their order."""
    path = folder / "collective_nccl_published.csv"
    path.write_text("\n".join((HEAD, *rows)) + "\n")
    found = {}
    for answer in predict_collectives(read_table(path)):
        ends = zip(answer.low.tolist(), answer.value.tolist(), answer.high.tolist(), strict=True)
        found.update(zip(answer.row_id, ends, strict=True))
    return [found[f"row{number}"] for number in range(len(rows))]


def test_switches_reduce_unless_turned_off(tmp_path: Path) -> None:
    row = "row{},B200 SXM,8,8,none,nccl-tests,all_reduce,{},8589934592,1"
    on, off = predicted(tmp_path, row.format(0, "NVLS (default)"), row.format(1, "Ring (NVLS disabled)"))
    assert 1.1 < off[1] / on[1] < 1.4  # a ring sends 7/4 of the message, a switch the whole once


def test_calls_from_python_take_a_host_s_time(tmp_path: Path) -> None:
    row = "row{},B200 SXM,8,8,none,{},all_reduce,default,{},1"
    graph, call, large = predicted(
        tmp_path, row.format(0, "nccl-tests", 32768), row.format(1, "PyTorch 2.9.1 all_reduce loop", 32768),
        row.format(2, "PyTorch 2.9.1 all_reduce loop", 1 << 30),
    )  # fmt: skip
    assert call[1] > 1.3 * graph[1]
    assert large[1] < 1.01 * predicted(tmp_path, row.format(0, "nccl-tests", 1 << 30))[0][1]


def test_engines_own_kernels_are_not_the_library_s(tmp_path: Path) -> None:
    row = "row{},H100 SXM,8,8,none,CUDA graph,all_reduce,{},4096,1"
    own, library = predicted(tmp_path, row.format(0, "one/two-shot custom"), row.format(1, "default"))
    assert own[1] < 0.5 * library[1]


def test_a_network_that_is_not_stated_is_the_catalogue_s_with_a_wide_interval(tmp_path: Path) -> None:
    row = "row{},H100 SXM 80GB,32,8,{},nccl-tests,all_reduce,default,1073741824,1"
    stated, unstated = predicted(
        tmp_path, row.format(0, "8x 400 Gb/s InfiniBand per node"), row.format(1, "not stated (cloud fabric)")
    )
    assert unstated[1] == stated[1]
    assert unstated[2] > 3 * stated[2]
