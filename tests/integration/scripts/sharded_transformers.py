"""A model of transformers' own under FSDP2, layer by layer, with AdamW: `sharded_transformers.py FAMILY SIZES [full]`.

SIZES: the configuration as JSON. Experts run as grouped products, the default of transformers where PyTorch has them.
"""

import json
import os
import sys

import torch
import torch.distributed as dist
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, AutoModelForImageTextToText

family, sizes = sys.argv[1], json.loads(sys.argv[2])
BATCH, SEQUENCE = 2, 1024
dist.init_process_group("nccl")
torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
config = CONFIG_MAPPING[family](**sizes)
kind = AutoModelForImageTextToText if hasattr(config, "vision_config") else AutoModelForCausalLM
with torch.device("meta"):  # as large models are built: nothing is on the card before it is shared out
    model = kind.from_config(config, dtype=torch.float32)
text = config.get_text_config()
decoder = model.model.language_model if hasattr(model.model, "language_model") else model.model
if "full" in sys.argv:
    model.gradient_checkpointing_enable({"use_reentrant": False})
policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
tower = getattr(model.model, "visual", None)
for layer in [*(tower.blocks if tower is not None else ()), *decoder.layers]:
    fully_shard(layer, mp_policy=policy)
if tower is not None:
    fully_shard([tower.patch_embed, tower.pos_embed], mp_policy=policy)
    fully_shard([tower.merger, *tower.deepstack_merger_list], mp_policy=policy)
# units as TorchTitan makes them; the last is needed again as soon as backward begins
if not config.tie_word_embeddings:
    fully_shard(decoder.embed_tokens, mp_policy=policy)
    fully_shard([decoder.norm, model.lm_head], mp_policy=policy, reshard_after_forward=False)
fully_shard(model, mp_policy=policy)
model.to_empty(device="cuda")
with torch.no_grad():
    for parameter in model.parameters():
        parameter.to_local().normal_(std=0.02)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
model.train()
for _step in range(2):
    ids = torch.randint(0, 1000, (BATCH, SEQUENCE), device="cuda")
    inputs = {"input_ids": ids}
    if tower is not None:
        vision = config.vision_config
        side = 32  # patches a side of one image of every sequence
        merged = side * side // vision.spatial_merge_size**2
        ids[:, 1 : 1 + merged] = config.image_token_id
        elements = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
        inputs["pixel_values"] = torch.randn(BATCH * side * side, elements, device="cuda")
        inputs["image_grid_thw"] = torch.tensor([[1, side, side]] * BATCH, device="cuda")
        inputs["mm_token_type_ids"] = (ids == config.image_token_id).int()
    logits = model(**inputs, use_cache=False).logits
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), ids.flatten())
    del logits
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
dist.destroy_process_group()
