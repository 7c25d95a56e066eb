"""Digits-VQA: what its batches hold, and the recorded comparison that rests on it."""

from __future__ import annotations

import shlex

import pytest
import torch

from windtunnel.cli.parser import Parser
from windtunnel.workloads.digits_vqa import evidence


def test_batches_ask_about_pictures_and_evaluation_is_held_out() -> None:
    pytest.importorskip("sklearn")
    from windtunnel.workloads.digits_vqa import data

    digits = data.Digits()
    assert len(digits.labels) == 1797
    pair = torch.tensor([[0, 1]] * 3)
    batch = digits.batch(pair, torch.tensor([0, 1, 2]))
    left, right = int(digits.labels[0]), int(digits.labels[1])
    for row, value in enumerate((left, right, left + right)):
        assert batch.labels[row, -3:].tolist() == [value // 10, value % 10, data.END]
        assert batch.ids[row, -3:].tolist() == batch.labels[row, -3:].tolist()
        assert (batch.labels[row, :-3] == data.IGNORED).all()
    assert int(batch.kinds.sum()) == 3 * data.VISUAL_TOKENS
    held, questions = digits.held_out(300)
    assert int(held.min()) >= data.TRAIN_PICTURES
    assert torch.bincount(questions).tolist() == [100, 100, 100]
    # the patches are the picture, cut: every pixel is there as often as frames and channels repeat it
    whole = torch.cat((digits.pictures[0], digits.pictures[1]), 1)
    patches = batch.pixels[: data.GRID[1] * data.GRID[2]].reshape(-1, 3 * 2, 64)[:, 0]
    assert torch.equal(patches.flatten().sort().values, whole.flatten().sort().values)
    assert torch.equal(patches[1].reshape(8, 8), whole[:8, 8:16])  # neighbours that merge stand together
    assert torch.equal(patches[2].reshape(8, 8), whole[8:16, :8])
    best = torch.nn.functional.one_hot(batch.ids.roll(-1, 1), data.VOCABULARY).float()
    assert data.answered_right(best, batch).tolist() == [True] * 3
    wrong = best.clone()
    wrong[0, -3] = wrong[0, -4]
    assert data.answered_right(wrong, batch).tolist() == [False, True, True]


def test_the_recorded_comparison_is_whole_and_can_be_repeated() -> None:
    result = evidence.recorded()
    assert (result.reference.target, result.candidate.target) == ("h100-sxm:bf16", "mtt-s5000:fp8")
    assert all(control.caught for control in result.locked.controls)
    assert result.locked.rerun_identical
    assert result.deviation("mean") is not None
    assert len(result.losses.replicas) == 5
    words = shlex.split(result.evidence.command)
    assert words[:2] == ["windtunnel", "align"]
    assert words[-1] == "digits-vqa"
    from windtunnel.cli import align

    parser = Parser()
    align.add_parser(parser.add_subparsers())
    assert parser.parse_args(words[1:]).steps == result.evidence.steps
