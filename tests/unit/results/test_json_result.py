"""The ``--json`` object: stable keys at top level, estimates whole, strict JSON."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from tests.support import sample_results
from windtunnel.errors import AnswerIsNo, WindtunnelError
from windtunnel.estimate import Estimate, Source
from windtunnel.results import json_result
from windtunnel.results.columns import PART_KEYS

TOP = {
    "schema", "status", "step_kind", "step_time_s", "tokens_per_s_per_gpu", "model_flops_per_token",
    "model_tflops_per_gpu", "mfu", "mfu_causal", "hfu", "mbu", "mfu_peak", "peak_reserved_bytes",
    "peak_active_bytes", "fits", "memory", "notices", "outcome", *PART_KEYS,
}  # fmt: skip


def _strict(value: object) -> dict[str, object]:
    loaded = json.loads(json.dumps(value, allow_nan=False))
    assert isinstance(loaded, dict)
    return loaded


def test_one_chip_has_its_keys_at_top_level() -> None:
    result = sample_results.training()
    answer = _strict(json_result.answer([result], saved="train.wt"))
    assert set(answer) >= TOP
    assert answer["status"] == "ok"
    assert answer["saved"] == "train.wt"
    step = answer["step_time_s"]
    assert isinstance(step, dict)
    assert set(step) == {"value", "low", "high", "source", "source_shares"}
    assert sum(step["source_shares"].values()) == pytest.approx(1.0)
    assert sum(answer[key] for key in PART_KEYS) == pytest.approx(step["value"])  # type: ignore[misc]


def test_several_chips_are_runs() -> None:
    results = [sample_results.training(), sample_results.out_of_memory()]
    answer = _strict(json_result.answer(results))
    runs = answer["runs"]
    assert isinstance(runs, list)
    assert [run["chip"] for run in runs] == [result.chip for result in results]
    assert [run["status"] for run in runs] == ["ok", "no"]
    assert answer["status"] == "no"
    assert "step_time_s" not in answer


def test_out_of_memory_does_not_fit() -> None:
    answer = _strict(json_result.answer([sample_results.out_of_memory()]))
    assert answer["fits"] is False
    assert answer["outcome"] == "out_of_memory"
    memory = answer["memory"]
    assert isinstance(memory, dict)
    assert memory["headroom_bytes"] < 0
    assert "train.py:142" in memory["out_of_memory_at"]


def test_infinity_becomes_null() -> None:
    rate = Estimate(2.0, 1.0, float("inf"), ((Source.ASSUMED, 1.0),))
    answer = _strict(json_result.answer([replace(sample_results.decode(), tokens_per_s_per_gpu=rate)]))
    assert answer["tokens_per_s_per_gpu"]["high"] is None  # type: ignore[index]


def test_failures() -> None:
    error = WindtunnelError("E101", "no chip", hint="try", values={"name": "x"})
    failure = _strict(json_result.failure(error))
    assert failure["status"] == "error"
    assert failure["error"] == {"code": "E101", "what": "no chip", "values": {"name": "x"}, "hint": "try"}
    assert json_result.failure(AnswerIsNo("E301", "no", hint="less"))["status"] == "no"
