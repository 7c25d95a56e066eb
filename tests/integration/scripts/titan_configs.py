"""TorchTitan configurations: its llama3 models with variable-length attention and the small assets."""

from dataclasses import dataclass

import torch
from torch.distributed.pipelining import schedules
from torchtitan.components.loss import ChunkedLossWrapper, CrossEntropyLoss
from torchtitan.components.metrics import MetricsProcessor
from torchtitan.components.optimizer import default_adamw
from torchtitan.config import ParallelismConfig, TrainingConfig
from torchtitan.distributed.activation_checkpoint import FullAC, SelectiveAC
from torchtitan.hf_datasets.text_datasets import HuggingFaceTextDataLoader
from torchtitan.models.common.config_utils import decoder_vocab_size
from torchtitan.models.llama3 import model_registry
from torchtitan.trainer import Trainer


def _takes_micro_batches(cls: type) -> None:
    """0.3.0 hands a schedule its micro-batches one by one, which PyTorch 2.13 cannot take yet."""
    plain = cls.step

    def step(self, *args, arg_mbs=None, kwarg_mbs=None, target_mbs=None, **kwargs):
        if kwarg_mbs is None:
            return plain(self, *args, **kwargs)
        self._split_inputs = lambda args, kwargs: (arg_mbs or [()] * len(kwarg_mbs), kwarg_mbs)
        return plain(self, target=torch.cat(target_mbs) if target_mbs else None, **kwargs)

    cls.step = step


_takes_micro_batches(schedules.PipelineScheduleSingle)
_takes_micro_batches(schedules.PipelineScheduleMulti)


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


def _text(config: Trainer.Config) -> Trainer.Config:
    """A debug model of TorchTitan's own on text, without what needs a card that runs graphs."""
    config.parallelism.spmd_backend = "partial_dtensor"
    config.training.disable_cuda_graphs = True
    config.training.steps = 2
    config.dataloader = HuggingFaceTextDataLoader.Config(dataset="c4_test")
    return config


def llama3_flex() -> Trainer.Config:
    from torchtitan.models.llama3.config_registry import llama3_debugmodel

    return _text(llama3_debugmodel())


def llama3_keeps() -> Trainer.Config:
    """Without activation checkpointing, which zero-bubble schedules cannot run in pieces."""
    config = llama3_flex()
    config.activation_checkpoint = None
    return config


def llama3_full_ac() -> Trainer.Config:
    config = llama3_flex()
    config.activation_checkpoint = FullAC.Config()
    return config


def deepseek_v3_debug() -> Trainer.Config:
    from torchtitan.models.deepseek_v3.config_registry import deepseek_v3_debugmodel

    return _text(deepseek_v3_debugmodel())


def qwen3_debug() -> Trainer.Config:
    from torchtitan.models.qwen3.config_registry import qwen3_debugmodel

    return _text(qwen3_debugmodel())


def qwen3_moe_debug() -> Trainer.Config:
    from torchtitan.models.qwen3.config_registry import qwen3_moe_debug

    return _text(qwen3_moe_debug())


class TextForPictures(HuggingFaceTextDataLoader):
    """Text for a model that looks for pictures in it and finds none."""

    @dataclass(kw_only=True, slots=True)
    class Config(HuggingFaceTextDataLoader.Config):
        pass

    def __iter__(self):
        for inputs, labels in super().__iter__():
            yield {**inputs, "special_tokens": {"image_id": -1, "video_id": -2}}, labels


def qwen3_5_debug() -> Trainer.Config:
    from torchtitan.models.qwen3_5.config_registry import qwen35_debugmodel

    config = _text(qwen35_debugmodel())
    config.dataloader = TextForPictures.Config(dataset="c4_test")
    return config


def qwen3_5_moe_debug() -> Trainer.Config:
    from torchtitan.models.qwen3_5.config_registry import qwen35_debugmodel_moe

    config = _text(qwen35_debugmodel_moe())
    # Its own layout is a pipeline, where FSDP trips over a vision encoder that was never called; ours comes by option.
    config.parallelism = ParallelismConfig(spmd_backend="partial_dtensor")
    config.dataloader = TextForPictures.Config(dataset="c4_test")
    return config


def llama3_float8() -> Trainer.Config:
    from torchtitan.models.llama3 import config_registry

    return _text(config_registry.llama3_debugmodel_float8())


def llama3_8b_whole_loss() -> Trainer.Config:
    """The loss over all logits at once, as TorchTitan computed it when its figures were published."""
    config = llama3_8b()
    config.loss = config.loss.loss_fn
    return config


def _cut(config: Trainer.Config, layers: int, vocabulary: int, batch: int, length: int) -> Trainer.Config:
    """A published size with fewer layers and words, its loss over all logits at once, nothing computed again."""
    config = _text(config)
    model = config.model_spec.model
    model.layers = model.layers[:layers]
    model.vocab_size = model.tok_embeddings.num_embeddings = vocabulary
    model.lm_head.out_features = vocabulary
    config.loss = CrossEntropyLoss.Config(global_vocab_size=vocabulary)
    config.training.local_batch_size, config.training.seq_len = batch, length
    config.activation_checkpoint = None
    config.compile.enable = False
    config.hf_assets_path = "./tests/assets/tokenizer"
    config.parallelism = ParallelismConfig(spmd_backend="partial_dtensor")
    config.metrics = MetricsProcessor.Config(log_freq=1)
    return config


def deepseek_v3_16b_cut() -> Trainer.Config:
    from torchtitan.models.deepseek_v3 import model_registry as deepseek
    from torchtitan.models.deepseek_v3.config_registry import deepseek_v3_16b

    config = deepseek_v3_16b()
    config.model_spec = deepseek("16B", attn_backend="flex")
    return _cut(config, layers=4, vocabulary=32000, batch=2, length=2048)


def llama3_8b_cut() -> Trainer.Config:
    from torchtitan.models.llama3.config_registry import llama3_8b as published

    config = published()
    config.model_spec = model_registry("8B", attn_backend="flex")
    return _cut(config, layers=4, vocabulary=32000, batch=2, length=2048)


def llama3_8b_cut_selective() -> Trainer.Config:
    """Every second product and attention are kept, the rest computed again."""
    config = llama3_8b_cut()
    config.activation_checkpoint = SelectiveAC.Config()
    return config


def deepseek_v3_16b_cut_selective() -> Trainer.Config:
    config = deepseek_v3_16b_cut()
    config.activation_checkpoint = SelectiveAC.Config()
    return config


def llama3_8b_cut_full() -> Trainer.Config:
    """Whole layers are computed again."""
    config = llama3_8b_cut()
    config.activation_checkpoint = FullAC.Config()
    return config


def qwen3_8b_cut() -> Trainer.Config:
    from torchtitan.models.qwen3 import model_registry as qwen3
    from torchtitan.models.qwen3.config_registry import qwen3_14b

    config = qwen3_14b()
    config.model_spec = qwen3("8B", attn_backend="flex")
    return _cut(config, layers=4, vocabulary=32000, batch=2, length=2048)


def qwen3_30b_cut() -> Trainer.Config:
    from torchtitan.models.qwen3.config_registry import qwen3_30b_a3b

    return _cut(qwen3_30b_a3b(), layers=4, vocabulary=32000, batch=2, length=2048)
