"""Traces and tables: decoded with Perfetto's own classes where they are installed, and complete."""

from __future__ import annotations

import csv as standard_csv
import io
import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from tests.support import sample_results
from windtunnel.report import chrome, csv, perfetto
from windtunnel.results.run_result import RunResult

RESULTS = (sample_results.training(), sample_results.decode())
CLUSTER = sample_results.cluster()


def _oracle(data: bytes) -> Any:
    protos = pytest.importorskip(
        "perfetto.protos.perfetto.trace.perfetto_trace_pb2", reason="the perfetto package is not installed"
    )
    trace = protos.Trace()
    trace.ParseFromString(data)
    from google.protobuf.unknown_fields import UnknownFieldSet

    for packet in trace.packet:
        for message in (packet, packet.track_event, packet.track_descriptor, packet.interned_data):
            assert len(UnknownFieldSet(message)) == 0
    return trace


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """(field, value) of one protobuf message: the least decoder that can disagree with our encoder."""
    position = 0

    def varint() -> int:
        nonlocal position
        value = shift = 0
        while True:
            byte = data[position]
            position += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while position < len(data):
        key = varint()
        if key & 7 == 0:
            yield key >> 3, varint()
        else:
            assert key & 7 == 2
            size = varint()
            yield key >> 3, data[position : position + size]
            position += size


def test_every_slice_begins_and_ends() -> None:
    open_slices: dict[int, int] = defaultdict(int)
    begun, latest = 0, -1
    known: set[int] = set()
    for field, packet in _fields(perfetto.encode((*RESULTS, CLUSTER))):
        assert field == 1
        content = dict(_fields(packet))  # type: ignore[arg-type]
        if 11 not in content:
            continue
        assert int(content[8]) >= latest
        latest = int(content[8])
        event = dict(_fields(content[11]))  # type: ignore[arg-type]
        for kind, entry in _fields(content.get(12, b"")):  # type: ignore[arg-type]
            if kind == 2:
                known.add(int(dict(_fields(entry))[1]))  # type: ignore[arg-type]
        assert event.get(10, 0) in known | {0}, "a name is used before it is told"
        if event[9] == 1:
            assert open_slices[event[11]] == 0  # type: ignore[index]
            open_slices[event[11]] += 1  # type: ignore[index]
            begun += 1
        elif event[9] == 2:
            open_slices[event[11]] -= 1  # type: ignore[index]
    ranks = sum(len(rank.spans) for rank in CLUSTER.ranks)
    assert begun == sum(len(result.spans) for result in (*RESULTS, CLUSTER)) + ranks
    assert not any(open_slices.values())


def test_perfetto_reads_what_we_write() -> None:
    trace = _oracle(perfetto.encode(RESULTS))
    names: dict[int, str] = {}
    tracks: dict[int, str] = {}
    strings: dict[int, str] = {}
    counted: set[str] = set()
    found: dict[tuple[str, str], int] = defaultdict(int)
    lines: set[str] = set()
    for packet in trace.packet:
        if packet.HasField("track_descriptor"):
            descriptor = packet.track_descriptor
            tracks[descriptor.uuid] = descriptor.name or descriptor.process.process_name
            if descriptor.HasField("counter"):
                counted.add(descriptor.name)
        for entry in packet.interned_data.event_names:
            names[entry.iid] = entry.name
        for entry in packet.interned_data.debug_annotation_string_values:
            strings[entry.iid] = entry.str.decode()
        if packet.HasField("track_event") and packet.track_event.type == 1:
            found[tracks[packet.track_event.track_uuid], names[packet.track_event.name_iid]] += 1
            lines |= {strings[note.string_value_iid] for note in packet.track_event.debug_annotations
                      if note.string_value_iid}  # fmt: skip
    training = RESULTS[0]
    gathers = sum(1 for span in training.spans if training.ops[span.op].name == "c10d.all_gather")
    assert found["stream nccl 0", "c10d.all_gather"] == gathers == 66
    assert "memory, activation (in order of events)" in counted
    assert "train.py:142" in lines
    assert tracks[1 << 20] == "NVIDIA H100 SXM 80 GB · 8 cards · training step"


def test_every_rank_is_a_process() -> None:
    trace = _oracle(perfetto.encode([CLUSTER]))
    names = [
        p.track_descriptor.process.process_name
        for p in trace.packet
        if p.track_descriptor.HasField("process")
    ]
    assert names[0].startswith("NVIDIA H100")
    assert names[1:] == [f"rank {rank}, stands for 16" for rank in (0, 16, 32)]
    uuids = [p.track_descriptor.uuid for p in trace.packet if p.HasField("track_descriptor")]
    assert len(uuids) == len(set(uuids))


def test_counters_hold_the_bytes() -> None:
    trace = _oracle(perfetto.encode(RESULTS[:1]))
    values = [packet.track_event.counter_value for packet in trace.packet if packet.track_event.type == 4]
    assert max(values) == max(row[2] for row in RESULTS[0].memory.timeline)


def test_chrome_events_are_complete() -> None:
    trace = json.loads(chrome.encode(RESULTS))
    events = [event for event in trace["traceEvents"] if event["ph"] == "X"]
    assert len(events) == sum(len(result.spans) for result in RESULTS)
    longest = max(RESULTS[0].spans, key=lambda span: span.duration_s)
    assert max(event["dur"] for event in events) == pytest.approx(longest.duration_s * 1e6, abs=1e-3)


def test_hostile_names_stay_whole() -> None:
    hostile = sample_results.hostile()
    assert json.loads(chrome.encode([hostile]))["traceEvents"][1]["args"]["name"] == hostile.tracks[0]
    assert hostile.tracks[0].encode() in perfetto.encode([hostile])


@pytest.mark.parametrize("kind", csv.TABLES)
def test_tables_have_equal_rows(kind: str) -> None:
    rows = list(standard_csv.reader(io.StringIO(csv.encode(CLUSTER, kind))))
    assert len(rows) > 1
    assert {len(row) for row in rows} == {len(rows[0])}


def test_ops_table_adds_up() -> None:
    rows = list(standard_csv.DictReader(io.StringIO(csv.encode(RESULTS[0], "ops"))))
    assert len(rows) == len(RESULTS[0].ops)
    assert sum(float(row["seconds"]) for row in rows) == pytest.approx(
        sum(op.seconds for op in RESULTS[0].ops)
    )


def test_no_cell_is_a_formula() -> None:
    base = RESULTS[0]
    op = replace(base.ops[0], module='=HYPERLINK("x")', line="@SUM(1)", shapes="-1")
    result: RunResult = replace(base, ops=(op,))
    (row,) = standard_csv.DictReader(io.StringIO(csv.encode(result, "ops")))
    assert row["module"].startswith("'=")
    assert row["line"].startswith("'@")
