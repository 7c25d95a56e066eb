"""Whether the sizes that a collective is given fit its group: what libraries refuse before they send anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from windtunnel.capture.tensor import VirtualTensor
from windtunnel.errors import WindtunnelError


def check(
    name: str,
    inputs: Sequence[torch.Tensor],
    outputs: Sequence[torch.Tensor] | None,
    ranks: int,
    given: Mapping[str, Any],
) -> None:
    """Refuse what does not multiply up; ``outputs``: None where the collective makes them itself.

    Raises:
        WindtunnelError: E244.
    """
    root = given.get("root_rank", 0)
    if not 0 <= root < ranks:
        raise _refused(name, ranks, f"there is no rank {root} to be its root")
    if "coalesced" in name or len(inputs) != 1:
        return
    size = inputs[0].numel()
    target = outputs[0].numel() if outputs is not None and len(outputs) == 1 else None
    if name in ("_allgather_base_", "all_gather_into_tensor_out"):
        if target is not None and target != size * ranks:
            raise _refused(name, ranks, f"{size} elements for each of {ranks} ranks do not make {target}")
    elif name == "_reduce_scatter_base_":
        if target is not None and target * ranks != size:
            raise _refused(name, ranks, f"{size} elements are not {ranks} times {target}")
    elif name == "reduce_scatter_tensor" or (
        name in ("alltoall_base_", "all_to_all_single") and not given.get("input_split_sizes")
    ):
        rows = inputs[0].shape[0] if inputs[0].dim() else 0
        if rows % ranks:
            raise _refused(name, ranks, f"{rows} rows cannot be shared out evenly")


def _refused(name: str, ranks: int, what: str) -> WindtunnelError:
    return WindtunnelError(
        "E244",
        f"{name.strip('_')} over {ranks} ranks: {what}",
        hint="pad the tensor, or give the sizes of each rank where the collective takes them",
        values={"line": str(VirtualTensor.state.context.current_line())},
    )
