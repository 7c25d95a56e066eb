"""Sessions: nothing is sent before what it waits for is answered, live, apart, or with a fixed number of clients."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.serving.traffic import replica
from windtunnel.serving.arrivals import at_rate, stretched
from windtunnel.serving.gui_agent import GuiAgent, gui_sessions
from windtunnel.serving.request import Follows, Request, Served, with_spans
from windtunnel.serving.router import Policy, Router
from windtunnel.serving.sessions import Sessions, without
from windtunnel.serving.simulate import session_loop, sessions_apart
from windtunnel.serving.trace_readers import read_trace


def sessions_of(seed: int, count: int = 12) -> list[Request]:
    """Sessions of calls that wait for one or two earlier ones, some with recorded gaps, some with times only."""
    draw = random.Random(seed)
    found: list[Request] = []
    for session in range(count):
        at, own = draw.uniform(0, 20), []
        for turn in range(draw.randint(1, 9)):
            number = len(found)
            prompt = 20 + 40 * turn
            after = tuple(sorted(draw.sample(own, min(len(own), draw.choice([1, 1, 2])))))
            gap_s = draw.choice([None, 0.0, draw.uniform(0, 3)])
            follows = Follows(after, gap_s) if after and draw.random() < 0.95 else None
            keys = tuple(range(session << 20, (session << 20) + -(-prompt // 16)))
            found.append(
                Request(number, at, prompt, draw.randint(1, 40), keys, 16, f"s{session}", follows=follows)
            )
            own.append(number)
            at += draw.uniform(0, 2)
    return found


def hold(requests: Sequence[Request], served: Sequence[Served], recorded: bool = True) -> None:
    """Everyone is answered, and was sent when it should have been; ``recorded``: sessions begin as recorded."""
    ends = {one.request.number: one.finished_s for one in served}
    assert sorted(ends) == [request.number for request in requests]
    for one, request in zip(served, requests, strict=True):
        sent_s, follows = one.request.arrival_s, request.follows
        assert one.admitted_s >= sent_s
        if follows is None:
            assert not recorded or sent_s == request.arrival_s
            continue
        answered_s = max(ends[number] for number in follows.calls)
        assert sent_s >= answered_s
        if follows.gap_s is not None:
            assert sent_s == pytest.approx(answered_s + follows.gap_s)
        elif recorded:
            assert sent_s == max(answered_s, request.arrival_s)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 3), st.sampled_from(list(Policy)), st.floats(0.5, 30.0))
def test_nothing_is_sent_before_what_it_waits_for_is_answered(
    seed: int, copies: int, policy: Policy, speed: float
) -> None:
    requests = stretched(sessions_of(seed), speed)
    replicas = [replica(number=n, max_num_seqs=4, max_num_batched_tokens=64) for n in range(copies)]
    hold(requests, session_loop(Sessions(requests), Router(replicas, policy)))
    assert all(rank.pool.free == rank.pool.capacity for one in replicas for rank in one.ranks)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.0, 0.05, 2.0]), st.booleans())
def test_prompts_and_outputs_apart_wait_too(seed: int, wire_s: float, parts: bool) -> None:
    requests = sessions_of(seed)
    first = [replica(number=n, max_num_batched_tokens=64) for n in (0, 1)]
    second = [replica(number=2)]
    wire: Callable[[int], float] = lambda tokens: wire_s * tokens / 100  # noqa: E731
    served = sessions_apart(Sessions(requests), Router(first), Router(second), wire, wire if parts else None)
    hold(requests, served)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 20))
def test_so_many_clients_go_through_one_session_each(seed: int, clients: int) -> None:
    requests = sessions_of(seed)
    served = session_loop(Sessions(requests, clients), Router([replica()]))
    hold(requests, served, recorded=False)
    spans = {}
    for one in served:
        begin, end = spans.get(one.request.session, (float("inf"), 0.0))
        spans[one.request.session] = min(begin, one.request.arrival_s), max(end, one.finished_s)
    events = sorted([(begin, 1) for begin, _ in spans.values()] + [(end, -1) for _, end in spans.values()])
    under_way = most = 0
    for _, change in events:
        under_way += change
        most = max(most, under_way)
    assert most == min(clients, len(spans))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_keys_in_stretches_say_all_else_as_before(seed: int) -> None:
    requests = sessions_of(seed)
    assert [replace(one, spans=()) for one in with_spans(requests)] == requests


def test_one_session_alone_by_hand() -> None:
    """Steps of 20 ms and 0.1 ms a token: 100 tokens and 3 more take 0.03 + 2 × 0.0201 s."""
    requests = [
        Request(0, 1.0, 100, 3, session="s"),
        Request(1, 1.5, 100, 1, session="s", follows=Follows((0,), 2.0)),
        Request(2, 9.0, 100, 1, session="s", follows=Follows((1,), None)),
    ]
    served = session_loop(Sessions(requests), Router([replica(async_scheduling=False)]))
    first_s = 1.0 + 0.03 + 2 * 0.0201
    assert [one.request.arrival_s for one in served] == pytest.approx([1.0, first_s + 2.0, 9.0])
    assert [one.finished_s for one in served] == pytest.approx([first_s, first_s + 2.03, 9.03])


def test_who_waited_for_a_refused_call_waits_for_what_that_one_waited_for() -> None:
    requests = [
        Request(0, 0.0, 8, 1, session="s"),
        Request(1, 1.0, 8, 1, session="s", follows=Follows((0,), 2.0)),
        Request(2, 2.0, 8, 1, session="s", follows=Follows((1,), 3.0)),
        Request(3, 3.0, 8, 1, session="s", follows=Follows((1, 2), 1.0)),
    ]
    assert [one.follows for one in without(requests, {1})] == [None, Follows((0,), 5.0), Follows((2, 0), 1.0)]
    assert without(requests, {0})[0].follows is None
    assert without(requests, {0, 1, 2})[0].follows is None
    assert without(requests, set()) == requests


def test_a_rate_moves_sessions_as_wholes() -> None:
    requests = sessions_of(3)
    moved = at_rate(requests, 0.5, seed=1)
    assert [one.follows for one in moved] == [one.follows for one in requests]
    shifts = {one.session: [] for one in requests}
    for before, after in zip(requests, moved, strict=True):
        shifts[before.session].append(after.arrival_s - before.arrival_s)
    assert all(max(found) - min(found) < 1e-9 for found in shifts.values())


def write(folder: Path, rows: Sequence[object]) -> Path:
    path = folder / "trace.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return path


def test_recorded_sessions_wait_for_what_had_ended(tmp_path: Path) -> None:
    """A chain; two calls side by side, then one for both; a call whose answer's time is not known."""
    calls = [(0, 5.2), (9, 3.0), (14, 6.0), (14, 9.5), (30, None), (50, 1.0)]
    rows = [{"t": t, "in": 10, "out": 2, **({} if took is None else {"api_time": took})} for t, took in calls]
    trace = read_trace(write(tmp_path, [{"id": "x", "block_size": 64, "requests": rows}]))
    after = [one.follows and one.follows.calls for one in trace.requests]
    assert after == [None, (0,), (1,), (1,), (2, 3), (4,)]
    gaps = [one.follows.gap_s for one in trace.requests if one.follows]
    assert gaps == pytest.approx([3.8, 2.0, 2.0, 6.5, 20.0])
    assert trace.untimed == 1


def test_agents_of_a_session_wait_for_themselves_and_for_those_that_ended_since(tmp_path: Path) -> None:
    path = tmp_path / "calls.csv"
    rows = ["trace,agent,seq,t,in_tok,out_tok,api_time,blocks,shared_prev_blocks"]
    rows += ["1,0,0,0,640,5,4,10,0", "1,0.1,0,6,640,5,2,10,0", "1,0.2,0,7,640,5,9,10,0"]
    rows += ["1,0.1,1,12,640,5,2,10,0", "1,0,1,20,640,5,1,10,0"]
    path.write_text("\n".join(rows), encoding="utf-8")
    after = [one.follows and one.follows.calls for one in read_trace(path).requests]
    assert after == [None, (0,), (0,), (1,), (0, 2, 3)]


def test_rows_that_name_what_they_wait_for(tmp_path: Path) -> None:
    """aiperf's turns (session_id, delay), Dynamo's agentic rows (wait_for), Bailian's chats (parent_chat_id)."""
    size = {"input_length": 10, "output_length": 2}
    turns = [
        {"session_id": "a", "timestamp": 1000, **size},
        {"session_id": "b", "timestamp": 3000, **size},
        {"session_id": "a", "delay": 1500, **size},
        {"session_id": "b", "timestamp": 9000, **size},
    ]
    found = read_trace(write(tmp_path, turns)).requests
    assert [one.arrival_s for one in found] == [0.0, 1.5, 2.0, 8.0]
    assert [one.follows for one in found] == [None, Follows((0,), 1.5), None, Follows((2,), None)]
    rows = [
        {"request_id": "p", "session_id": "a", "timestamp": 0, **size},
        {"request_id": "q", "session_id": "a1", "wait_for": ["p"], "delay": 100, **size},
        {"request_id": "r", "session_id": "a2", "wait_for": ["p"], "tool_wait_ms": 700, **size},
        {
            "request_id": "s",
            "session_id": "a",
            "wait_for": ["q", "r"],
            "delay": 50,
            "tool_wait_ms": 50,
            **size,
        },
    ]
    found = read_trace(write(tmp_path, rows)).requests
    assert [one.follows for one in found] == [
        None, Follows((0,), 0.1), Follows((0,), 0.7), Follows((1, 2), pytest.approx(0.1)),
    ]  # fmt: skip
    chats = [
        {"chat_id": 1, "parent_chat_id": -1, "timestamp": 5, "hash_ids": [1], **size},
        {"chat_id": 2, "parent_chat_id": 1, "timestamp": 65, "hash_ids": [1], **size},
    ]
    found = read_trace(write(tmp_path, chats)).requests
    assert [one.follows for one in found] == [None, Follows((0,), None)]


def test_recordings_of_agents_and_their_embeddings(tmp_path: Path) -> None:
    call = {"prompt_tokens": 20, "completion_tokens": 3, "hash_ids": [0], "block": 64, "tag": "team"}
    rows = [
        {"t": 0.0, "dur": 2.0, **call},
        {"t": 2.5, "path": "/v1/embeddings", "prompt_tokens": 14, "n_inputs": 1},
        {"t": 3.0, "dur": 1.0, **call},
    ]
    trace = read_trace(write(tmp_path, rows))
    assert not trace.bad
    assert [one.follows for one in trace.requests] == [None, None, Follows((0,), 1.0)]
    assert (trace.requests[1].prompt_tokens, trace.requests[1].output_tokens) == (14, 1)
    row = {"task": "t:0", "agent": "a", "prompt_tokens": 20, "output_tokens": 3, "keys": [1, 2]}
    rows = [{**row, "began_s": 7.0, "ended_s": 8.0}, {**row, "began_s": 8.25, "ended_s": 9.0}]
    assert [one.follows for one in read_trace(write(tmp_path, rows)).requests] == [None, Follows((0,), 0.25)]


def test_a_screen_agent_sees_its_answer_before_it_goes_on() -> None:
    requests = gui_sessions(GuiAgent(turns=4, patches=400, system_tokens=64, task_tokens=16), 6, 1.0)
    engine = replica(num_gpu_blocks=5000, max_num_batched_tokens=64)
    hold(requests, session_loop(Sessions(requests), Router([engine])))
    assert sum(one.follows is None for one in requests) == 6


def test_published_sessions_are_chains(shared: Path) -> None:
    trace = read_trace(shared / "traces" / "agentic_claude_code_raw24.jsonl.gz")
    assert sum(one.follows is None for one in trace.requests) == 24
    assert all(len(one.follows.calls) == 1 for one in trace.requests if one.follows)
    assert trace.untimed == 124
    for one in trace.requests:
        for number in one.follows.calls if one.follows else ():
            assert trace.requests[number].session == one.session
