"""FSDP2's pieces are cut on demand: the same ones, and a world of 10,240 ranks costs what one of 8 does."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.capture.test_distributed import run
from windtunnel.capture.distributed.shards import Pieces


@given(rows=st.integers(1, 40), ranks=st.integers(1, 50), dim=st.integers(0, 1))
def test_pieces_are_those_of_chunk(rows: int, ranks: int, dim: int) -> None:
    shape = (rows, 3) if dim == 0 else (3, rows)
    tensor = torch.arange(rows * 3.0).reshape(shape)
    wanted = list(torch.chunk(tensor, ranks, dim=dim))
    wanted += [tensor.new_empty(0)] * (ranks - len(wanted))
    pieces = Pieces(tensor, ranks, dim)
    assert len(pieces) == ranks
    for found, expected in zip(pieces, wanted, strict=True):
        assert torch.equal(found, expected)
        assert found.storage_offset() == expected.storage_offset()
    assert torch.equal(pieces[-1], wanted[-1])
    assert [piece.shape for piece in pieces[1:3]] == [piece.shape for piece in wanted[1:3]]


def test_past_the_end_there_is_no_piece() -> None:
    with pytest.raises(IndexError):
        Pieces(torch.ones(4), 2, 0)[2]


def test_sharding_over_ten_thousand_ranks_is_not_recorded_rank_by_rank() -> None:
    out = run(
        10240,
        """
        from torch.distributed.fsdp import fully_shard
        model = nn.Linear(64, 20480, device="musa")
        fully_shard(model)
        print(sum(count().values()), model.weight.to_local().shape, model.bias.to_local().shape)
        """,
    )
    operations, shapes = out.split(" ", 1)
    assert int(operations) < 40
    assert shapes.strip() == "torch.Size([2, 64]) torch.Size([2])"
