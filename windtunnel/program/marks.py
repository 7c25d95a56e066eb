"""Names and attributes of operations that are not kernels: host events, synchronisation, collectives.

They are ordinary ``OpSpec`` so that one list keeps the order of everything.

| name | attributes | meaning |
|---|---|---|
| ``windtunnel.event_record`` | event | the event completes when the stream's work so far is done |
| ``windtunnel.event_wait`` | event | the stream waits for the event |
| ``windtunnel.event_synchronize`` | event | the host waits for the event |
| ``windtunnel.stream_synchronize`` | | the host waits for the site's stream |
| ``windtunnel.synchronize`` | | the host waits for everything |
| ``windtunnel.item`` | | a value is read back: a small copy to the host, and the host waits |
| ``windtunnel.host_delay`` | seconds | the host does something else (sleep, data loading) |
| ``windtunnel.graph_launch`` | kernels | a captured graph begins; its kernels follow without host cost |
| ``windtunnel.graph_end`` | | the captured graph ends |
| ``windtunnel.nothing`` | | an operation that raised: it costs nothing |
| ``windtunnel.wait_collective`` | work | the current stream waits for a collective |
| ``c10d.<name>`` | group, work, async_op, root or peer, reduce_op | a collective over its tensors |
"""

from __future__ import annotations

EVENT_RECORD = "windtunnel.event_record"
EVENT_WAIT = "windtunnel.event_wait"
EVENT_SYNCHRONIZE = "windtunnel.event_synchronize"
STREAM_SYNCHRONIZE = "windtunnel.stream_synchronize"
SYNCHRONIZE = "windtunnel.synchronize"
ITEM = "windtunnel.item"
HOST_DELAY = "windtunnel.host_delay"
GRAPH_LAUNCH = "windtunnel.graph_launch"
GRAPH_END = "windtunnel.graph_end"
WAIT_COLLECTIVE = "windtunnel.wait_collective"
NOTHING = "windtunnel.nothing"
COLLECTIVE_PREFIX = "c10d."

HOST_MARKS = frozenset(
    {
        EVENT_RECORD,
        EVENT_WAIT,
        EVENT_SYNCHRONIZE,
        STREAM_SYNCHRONIZE,
        SYNCHRONIZE,
        ITEM,
        HOST_DELAY,
        GRAPH_LAUNCH,
        GRAPH_END,
        WAIT_COLLECTIVE,
        NOTHING,
    }
)
