"""TorchTitan configurations: its llama3 models with variable-length attention and the small assets."""

from torchtitan.components.loss import ChunkedLossWrapper, CrossEntropyLoss
from torchtitan.components.metrics import MetricsProcessor
from torchtitan.components.optimizer import default_adamw
from torchtitan.config import ParallelismConfig, TrainingConfig
from torchtitan.distributed.activation_checkpoint import SelectiveAC
from torchtitan.hf_datasets.text_datasets import HuggingFaceTextDataLoader
from torchtitan.models.common.config_utils import decoder_vocab_size
from torchtitan.models.llama3 import model_registry
from torchtitan.trainer import Trainer


def _llama3(flavor: str, batch: int, length: int) -> Trainer.Config:
    spec = model_registry(flavor, attn_backend="varlen")
    loss = CrossEntropyLoss.Config(global_vocab_size=decoder_vocab_size(spec))
    return Trainer.Config(
        loss=ChunkedLossWrapper.Config(loss_fn=loss),
        hf_assets_path="./tests/assets/tokenizer",
        model_spec=spec,
        optimizer=default_adamw(lr=3e-4),
        training=TrainingConfig(local_batch_size=batch, seq_len=length, steps=2),
        dataloader=HuggingFaceTextDataLoader.Config(dataset="c4_test"),
        metrics=MetricsProcessor.Config(log_freq=1),
        parallelism=ParallelismConfig(spmd_backend="partial_dtensor"),
        activation_checkpoint=SelectiveAC.Config(),
    )


def llama3_debug() -> Trainer.Config:
    return _llama3("debugmodel", 8, 2048)


def llama3_8b() -> Trainer.Config:
    return _llama3("8B", 2, 8192)
