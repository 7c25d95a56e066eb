"""Turn what `windtunnel serve --record` wrote into the call graphs that ship with the package.

python examples/agents/keep_graphs.py calls.jsonl autogen='autogen-agentchat 0.7.5, 27 November 2026' …
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import msgspec

from windtunnel.workloads.agents.graph import RECORDED, stored
from windtunnel.workloads.agents.recording import read

sources = dict(word.split("=", 1) for word in sys.argv[2:])
kept = [
    stored(replace(graph, source=sources.get(graph.name.partition(":")[0], graph.source)))
    for graph in read(Path(sys.argv[1]), "unknown")
]
lines = [msgspec.json.encode(graph).decode() for graph in sorted(kept, key=lambda graph: graph.name)]
RECORDED.write_text("[\n" + ",\n".join(lines) + "\n]\n", encoding="utf-8")
print(f"{len(kept)} graphs, {sum(len(graph.calls) for graph in kept)} calls: {RECORDED}")
