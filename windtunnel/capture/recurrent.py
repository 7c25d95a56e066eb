"""Fused LSTM and GRU cells: PyTorch has them for accelerators only, so the CPU needs kernels for values.

Formulas and the layout of the workspaces (gates after their activation) are those of PyTorch's own cells.
"""

from __future__ import annotations

import torch

Tensor = torch.Tensor
_libraries: list[torch.library.Library] = []


def register() -> None:
    """Give the cells CPU and shape kernels, once per process."""
    if _libraries:
        return
    library = torch.library.Library("aten", "IMPL")
    _libraries.append(library)
    for name, kernel in (
        ("_thnn_fused_lstm_cell", lstm_cell),
        ("_thnn_fused_lstm_cell_backward_impl", lstm_cell_backward),
        ("_thnn_fused_gru_cell", gru_cell),
        ("_thnn_fused_gru_cell_backward", gru_cell_backward),
    ):
        library.impl(name, kernel, "CPU")
        if "gru" in name:  # PyTorch has shape functions for the LSTM's
            library.impl(name, kernel, "Meta")


def _biased(gates: Tensor, bias: Tensor | None) -> Tensor:
    return gates if bias is None else gates + bias


def lstm_cell(
    input_gates: Tensor,
    hidden_gates: Tensor,
    cx: Tensor,
    input_bias: Tensor | None = None,
    hidden_bias: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Hidden and cell state, shape (batch, hidden), and the workspace, shape (batch, 4 · hidden)."""
    gates = _biased(input_gates, input_bias) + _biased(hidden_gates, hidden_bias)
    i, f, g, o = gates.chunk(4, 1)
    i, f, g, o = i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()
    cy = f * cx + i * g
    return o * cy.tanh(), cy, torch.cat((i, f, g, o), 1)


def lstm_cell_backward(
    grad_hy: Tensor | None, grad_cy: Tensor | None, cx: Tensor, cy: Tensor, workspace: Tensor, has_bias: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of the gates, of the cell state, and of each bias (empty without)."""
    i, f, g, o = workspace.chunk(4, 1)
    hidden = torch.zeros_like(cx) if grad_hy is None else grad_hy
    cell = torch.zeros_like(cx) if grad_cy is None else grad_cy
    tanh = cy.tanh()
    d_cell = cell + hidden * o * (1 - tanh * tanh)
    parts = (
        d_cell * g * i * (1 - i),
        d_cell * cx * f * (1 - f),
        d_cell * i * (1 - g * g),
        hidden * tanh * o * (1 - o),
    )
    gates = torch.cat(parts, 1)
    bias = gates.sum(0) if has_bias else gates.new_empty(0)
    return gates, d_cell * f, bias


def gru_cell(
    input_gates: Tensor,
    hidden_gates: Tensor,
    hx: Tensor,
    input_bias: Tensor | None = None,
    hidden_bias: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Hidden state, shape (batch, hidden), and the workspace, shape (batch, 5 · hidden)."""
    ir, ii, inew = _biased(input_gates, input_bias).chunk(3, 1)
    hr, hi, hnew = _biased(hidden_gates, hidden_bias).chunk(3, 1)
    r, z = (ir + hr).sigmoid(), (ii + hi).sigmoid()
    n = (inew + r * hnew).tanh()
    return n + z * (hx - n), torch.cat((r, z, n, hx, hnew), 1)


def gru_cell_backward(
    grad_hy: Tensor, workspace: Tensor, has_bias: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of input gates, hidden gates, hidden state and both biases (empty without)."""
    r, z, n, hx, hnew = workspace.chunk(5, 1)
    d_n = grad_hy * (1 - z) * (1 - n * n)
    d_z = grad_hy * (hx - n) * z * (1 - z)
    d_r = d_n * hnew * r * (1 - r)
    inputs, hidden = torch.cat((d_r, d_z, d_n), 1), torch.cat((d_r, d_z, d_n * r), 1)
    empty = inputs.new_empty(0)
    biases = (inputs.sum(0), hidden.sum(0)) if has_bias else (empty, empty)
    return inputs, hidden, grad_hy * z, *biases
