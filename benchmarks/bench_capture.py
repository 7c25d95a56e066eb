"""Recording, pricing and memory replay of Qwen3.5-397B against FakeTensorMode on the same Python path.

Processor seconds, so that what else the machine does counts little; everything here runs on one thread.
"""

from __future__ import annotations

import gc
import json
import resource
import subprocess
import sys
import time

import torch

from benchmarks.models import qwen35_397b

TOKENS = 512


def say(name: str, value: float, unit: str, target: float) -> None:
    print(json.dumps({"name": name, "value": value, "unit": unit, "target": target}), flush=True)


def fake_seconds() -> float:
    """Forward and backward under FakeTensorMode, second pass."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        model = qwen35_397b("cpu")
        ids = torch.zeros(1, TOKENS, dtype=torch.long)
        best = float("inf")
        for _ in range(2):
            begin = time.process_time()
            logits = model(ids).logits
            logits.float().mean().backward()
            best = min(best, time.process_time() - begin)
            model.zero_grad(set_to_none=True)
    return best


def recorded_seconds(kernels: bool, optimizer: bool) -> tuple[float, float, float]:
    """(record + price + memory, re-price on another chip, peak resident GB), second pass."""
    from windtunnel.capture.session import Session
    from windtunnel.specs.catalogue import chip
    from windtunnel.timeline.predict import predict

    best = reprice = float("inf")
    for _ in range(2):
        session = Session(chip("mtt-s5000"), oom_continue=True, kernels=kernels).install()
        model = qwen35_397b("musa")
        ids = torch.zeros(1, TOKENS, dtype=torch.long, device="musa")
        adamw = torch.optim.AdamW(model.parameters()) if optimizer else None
        gc.collect()
        begin = time.process_time()
        model(ids).logits.float().mean().backward()
        if adamw is not None:
            adamw.step()
        program = session.program()
        predict(program, chip("mtt-s5000"))
        best = min(best, time.process_time() - begin)
        begin = time.process_time()
        predict(program, chip("h100-sxm"))
        reprice = min(reprice, time.process_time() - begin)
        session.remove()
        del model, adamw
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return best, reprice, resident


def main() -> None:
    case = sys.argv[1] if len(sys.argv) > 1 else ""
    if case == "fake":
        print(fake_seconds())
    elif case:
        print(*recorded_seconds(kernels="kernels" in case, optimizer="adamw" in case))
    else:
        # alternating, best of two: the machine may be busy with other things for a while
        first, other = _in_process("fake")[0], _in_process("same")
        fake = min(first, _in_process("fake")[0])
        same, reprice = (min(pair) for pair in zip(other[:2], _in_process("same")[:2]))
        adamw, _, resident = _in_process("adamw")
        fast, _, _ = _in_process("kernels")
        say("record + price + memory, same path ÷ FakeTensorMode", same / fake, "ratio", 0.25)
        say("the same with AdamW", adamw, "s", 4.0)
        say("the same with AdamW, resident memory", resident, "GB", 2.0)
        say("with virtual kernels ÷ same path", fast / same, "ratio", 0.75)
        say("re-pricing on another chip", reprice, "s", 0.3)


def _in_process(case: str) -> list[float]:
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.bench_capture", case]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True)
    return [float(value) for value in done.stdout.split()[-3:]]


if __name__ == "__main__":
    main()
