"""Keeps what ``vllm_oracle.py`` printed as the golden file: oracle output, vLLM version, file."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from cases import cases, condensed

answers = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
runs = [
    condensed(case["name"], run["steps"], run["times"]) for case, run in zip(cases(), answers, strict=True)
]
text = json.dumps({"vllm": sys.argv[2], "runs": runs}, separators=(",", ":"))
Path(sys.argv[3]).write_text(text.replace('{"name"', '\n{"name"') + "\n", encoding="utf-8")
