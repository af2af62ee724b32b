"""Whether a CPU has instructions for bfloat16: without them it is several times slower than float32."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from pipelines.config.schema import TrainConfig


def slow_precision(config: TrainConfig, use_gpu: bool, capabilities: Mapping[str, object] | None = None) -> str | None:
    """Warn of a training in bfloat16 on a CPU that has no instructions for it; None: nothing to warn of.

    Parameters
    ----------
    capabilities : of the CPU, by name; None: what torch says of this one.
    """
    if config.precision != "bfloat16" or use_gpu:
        return None
    if capabilities is None:
        capabilities = torch.cpu.get_capabilities()
    if any(bool(has) for name, has in capabilities.items() if "bf16" in name):
        return None
    return (
        "train.precision=bfloat16: this machine's CPU has no instructions for it (avx512_bf16, amx_bf16, or bf16 on "
        "ARM), so a step takes several times as long as in float32; leave it out, or: --set train.precision=float32"
    )
