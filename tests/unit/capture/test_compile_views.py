"""Views between fused operations: the order of a compiled region exists, and values are right."""

from __future__ import annotations

import pytest
import torch

from windtunnel.capture.session import Session

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")


def gelu_through_views(x: torch.Tensor) -> torch.Tensor:
    y = x.sin()
    z = y.view(2, -1).cos() + 1
    return z.view(-1) * y


def test_a_view_inside_a_fused_group_does_not_tie_it_to_itself(values: Session) -> None:
    x = torch.arange(8.0)
    compiled = torch.compile(gelu_through_views)
    assert torch.equal(compiled(x.to("musa")).cpu(), gelu_through_views(x))
    fused = [spec for spec in values.recorder.specs if spec.name == "windtunnel.fused"]
    assert len(fused) == 1
    assert fused[0].attribute("ops") == 4
