"""TorchTitan's published run of December 2024: Llama-3.1 8B, the loss over all logits at once as it was then."""

from titan_configs import llama3_8b
from torchtitan.trainer import Trainer


def llama3_8b_2024() -> Trainer.Config:
    config = llama3_8b()
    config.loss = config.loss.loss_fn
    return config
