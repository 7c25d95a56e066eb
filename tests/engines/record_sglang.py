"""Keeps a digest of what SGLang's classes answered: ``record_sglang.py ANSWERS VERSION OUT``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.engines.cases import condensed

answers, version, out = sys.argv[1:4]
runs = [
    {**condensed(run["name"], run["steps"], run["times"]), "retracted": run["retracted"]}
    for run in json.loads(Path(answers).read_text(encoding="utf-8"))
]
text = json.dumps({"sglang": version, "runs": runs}, indent=None, separators=(",", ":"))
Path(out).write_text(text.replace('{"name"', '\n{"name"') + "\n", encoding="utf-8")
