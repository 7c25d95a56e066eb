"""Context parallel attention: PyTorch's ring (all-gather or all-to-all of keys and values)."""

import os
import sys

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor.experimental import context_parallel
from torch.distributed.tensor.experimental._attention import set_rotate_method

dist.init_process_group("nccl")
torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
mesh = init_device_mesh("cuda", (dist.get_world_size(),), mesh_dim_names=("cp",))
set_rotate_method(sys.argv[1])
projection = nn.Linear(512, 3 * 512).cuda().bfloat16()
optimizer = torch.optim.AdamW(projection.parameters())
for _ in range(2):
    x = torch.randn(2, 4096, 512, device="cuda", dtype=torch.bfloat16)
    with context_parallel(mesh, buffers=[x], buffer_seq_dims=[1]):
        q, k, v = projection(x).chunk(3, -1)
        q, k, v = (t.unflatten(-1, (8, 64)).transpose(1, 2).contiguous() for t in (q, k, v))
        with nn.attention.sdpa_kernel(nn.attention.SDPBackend.FLASH_ATTENTION):
            out = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        out.float().sum().backward()
    optimizer.step()
    optimizer.zero_grad()
dist.destroy_process_group()
