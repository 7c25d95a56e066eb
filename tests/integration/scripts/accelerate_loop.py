"""accelerate's own loop on a small Llama: DDP, or FSDP2 where ``fsdp2`` is asked for."""

import sys

import torch
from accelerate import Accelerator, FullyShardedDataParallelPlugin
from transformers import LlamaConfig, LlamaForCausalLM

config = LlamaConfig(
    hidden_size=256,
    intermediate_size=512,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=4,
    vocab_size=1000,
)
plugin = None
if sys.argv[1] == "fsdp2":
    plugin = FullyShardedDataParallelPlugin(
        fsdp_version=2,
        auto_wrap_policy="transformer_based_wrap",
        transformer_cls_names_to_wrap=["LlamaDecoderLayer"],
    )
accelerator = Accelerator(mixed_precision="bf16", fsdp_plugin=plugin)
model = LlamaForCausalLM(config)
optimizer = torch.optim.AdamW(model.parameters())
rows = torch.utils.data.DataLoader(torch.randint(0, 1000, (256, 128)), batch_size=4, shuffle=True)
model, optimizer, rows = accelerator.prepare(model, optimizer, rows)
for step, ids in enumerate(rows):
    loss = model(input_ids=ids, labels=ids).loss
    accelerator.backward(loss)
    accelerator.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    accelerator.print(step, accelerator.gather(loss.detach()).mean().item())
    if step == 2:
        break
