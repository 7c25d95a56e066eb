"""transformers' Trainer on a small Llama."""

import torch
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments


class Data(torch.utils.data.Dataset):
    def __len__(self):
        return 16

    def __getitem__(self, index):
        ids = torch.randint(0, 100, (32,))
        return {"input_ids": ids, "labels": ids}


config = LlamaConfig(
    hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, vocab_size=100
)
arguments = TrainingArguments(
    output_dir="out",
    per_device_train_batch_size=4,
    gradient_accumulation_steps=2,
    num_train_epochs=1,
    bf16=True,
    logging_steps=1,
    save_strategy="no",
    report_to=[],
)
trainer = Trainer(model=LlamaForCausalLM(config), args=arguments, train_dataset=Data())
trainer.train()
print("done", trainer.state.global_step, arguments.device.type)
