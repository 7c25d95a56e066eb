"""The platform that vLLM sees: a chip of ours by name, size and capability, no kernels."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from vllm.platforms.interface import DeviceCapability, Platform, PlatformEnum

from windtunnel.endpoint.vllm import settings

EXECUTOR = "windtunnel.endpoint.vllm.executor.VirtualExecutor"


class VirtualPlatform(Platform):
    """One card of ``WINDTUNNEL_ON``. Tensors that vLLM makes for itself stay on the CPU."""

    _enum = PlatformEnum.OOT
    device_name = "cpu"
    device_type = "cpu"
    dispatch_key = "CPU"
    dist_backend = "gloo"
    supported_quantization: ClassVar[list[str]] = []

    @classmethod
    def get_device_name(cls, device_id: int = 0) -> str:
        return settings.cluster().chip.title

    @classmethod
    def get_device_total_memory(cls, device_id: int = 0) -> int:
        return int(settings.cluster().chip.memory_bytes.value)

    @classmethod
    def get_device_capability(cls, device_id: int = 0) -> DeviceCapability:
        return DeviceCapability(9, 0)  # as young as vLLM's defaults expect

    @classmethod
    def num_compute_units(cls, device_id: int = 0) -> int:
        return int(settings.cluster().chip.multiprocessors.value)

    @classmethod
    def is_pin_memory_available(cls) -> bool:
        return False

    @classmethod
    def inference_mode(cls) -> Any:
        return torch.no_grad()

    @classmethod
    def set_device(cls, device: torch.device) -> None:
        return None

    @classmethod
    def check_if_supports_dtype(cls, dtype: torch.dtype) -> None:
        return None

    @classmethod
    def support_hybrid_kv_cache(cls) -> bool:
        return True

    @classmethod
    def supports_fp8(cls) -> bool:
        return "fp8" in settings.cluster().chip.peak_flops

    @classmethod
    def get_attn_backend_cls(
        cls, selected_backend: Any, attn_selector_config: Any, *rest: Any, **named: Any
    ) -> str:
        if getattr(attn_selector_config, "use_mla", False):
            return "vllm.v1.attention.backends.mla.triton_mla.TritonMLABackend"
        return "vllm.v1.attention.backends.cpu_attn.CPUAttentionBackend"

    @classmethod
    def get_mla_prefill_backend_cls(cls, config: Any) -> Any:
        from vllm.v1.attention.backends.mla.prefill.cpu_sdpa import CPUSDPAMLAPrefillBackend

        return CPUSDPAMLAPrefillBackend

    @classmethod
    def import_kernels(cls) -> None:
        return None

    @classmethod
    def check_and_update_config(cls, vllm_config: Any) -> None:
        """One process plays all cards of an engine; nothing is compiled or captured."""
        from vllm.config import (  # vLLM asks for the platform while it loads this
            CompilationMode,
            CUDAGraphMode,
        )

        parallel = vllm_config.parallel_config
        parallel.distributed_executor_backend = EXECUTOR
        parallel.worker_cls = "vllm.v1.worker.worker_base.WorkerBase"
        parallel.disable_custom_all_reduce = True
        vllm_config.compilation_config.mode = CompilationMode.NONE
        vllm_config.compilation_config.cudagraph_mode = CUDAGraphMode.NONE
