"""The part of NVIDIA's Apex that Megatron-core looks for: fused layer normalisation."""
