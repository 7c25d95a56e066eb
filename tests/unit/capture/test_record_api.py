"""`windtunnel.record`: the card for a block of code, without the command."""

from __future__ import annotations

import torch
from torch import nn

import windtunnel


def test_a_block_is_recorded_and_priced_on_any_chip() -> None:
    with windtunnel.record("mtt-s5000") as session:
        model = nn.Linear(1024, 1024).cuda()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(2):
            model(torch.randn(64, 1024, device="cuda")).sum().backward()
            optimizer.step()
    program = session.program()
    here = windtunnel.predict(program, on="mtt-s5000")
    there = windtunnel.predict(program, on="h100-sxm")
    assert here.step_time_s.value > there.step_time_s.value > 0
    assert not torch.cuda.is_available()
