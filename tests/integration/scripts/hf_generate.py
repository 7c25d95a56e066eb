"""Greedy and sampled generation, with the model found through its own device."""

import torch
from transformers import LlamaConfig, LlamaForCausalLM

config = LlamaConfig(
    hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, vocab_size=100
)
model = LlamaForCausalLM(config).to("cuda", torch.bfloat16).eval()
prompt = torch.randint(3, 100, (2, 8)).to(model.device)
with torch.inference_mode():
    greedy = model.generate(prompt, max_new_tokens=4, min_new_tokens=4, do_sample=False)
    drawn = model.generate(prompt, max_new_tokens=4, min_new_tokens=4, do_sample=True, top_k=5)
print("done", tuple(greedy.shape), tuple(drawn.shape), model.device.type)
