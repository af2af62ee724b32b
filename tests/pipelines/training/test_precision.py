"""When bfloat16 is warned of."""

from __future__ import annotations

import pytest

from pipelines.config.schema import TrainConfig
from pipelines.training.precision import slow_precision

BFLOAT16 = TrainConfig(precision="bfloat16")
OLD, NEW = {"avx2": True, "avx512_bf16": False}, {"avx2": True, "avx512_bf16": True}


def test_a_cpu_without_the_instructions_is_named() -> None:
    line = slow_precision(BFLOAT16, use_gpu=False, capabilities=OLD)
    assert line is not None
    assert "--set train.precision=float32" in line


@pytest.mark.parametrize("config", [TrainConfig(), TrainConfig(precision="float32")])
def test_float32_is_not_warned_of(config: TrainConfig) -> None:
    assert slow_precision(config, use_gpu=False, capabilities=OLD) is None


def test_a_cpu_or_gpu_that_can_is_not_warned_of() -> None:
    assert slow_precision(BFLOAT16, use_gpu=False, capabilities=NEW) is None
    assert slow_precision(BFLOAT16, use_gpu=True, capabilities=OLD) is None


def test_this_machine_says_what_it_can() -> None:
    slow_precision(BFLOAT16, use_gpu=False)  # torch's own names are read without an error
