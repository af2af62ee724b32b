"""Hashes of ids: SplitMix64 in NumPy, which is the SplitMix64 that mind_core draws with in torch."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import torch
from hypothesis import given
from hypothesis import strategies as st

from mind_core.shuffle import _bits
from mind_core.splitmix import GOLDEN
from pipelines.log.ids import _mix, as_array

# what the reference implementation gives for seed 0 (https://prng.di.unimi.it/splitmix64.c)
PUBLISHED = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F, 0xF88BB8A8724C81EC, 0x1B39896A51A8749B]
DRAWN_BITS = 2**62 - 1


def mixed(number: int, word: int) -> int:
    """Output `number` of the generator seeded with `word`, in NumPy."""
    return int(_mix(np.array([(word + (number - 1) * GOLDEN) % 2**64], np.uint64))[0])


def test_both_are_the_published_generator() -> None:
    assert [mixed(number, 0) for number in range(1, 6)] == PUBLISHED
    assert _bits(torch.arange(1, 6), 0).tolist() == [value & DRAWN_BITS for value in PUBLISHED]


@given(st.integers(-(2**63), 2**63 - 1), st.integers(-(2**63), 2**63 - 1))
def test_numpy_and_torch_give_the_same_numbers(number: int, word: int) -> None:
    assert _bits(torch.tensor([number]), word).tolist() == [mixed(number, word) & DRAWN_BITS]


def test_lists_of_text_as_polars_keeps_it_can_be_taken_from() -> None:
    lists = pa.array([["a", "b"], None, [], ["c", None]], pa.large_list(pa.string_view()))
    plain = as_array(pa.chunked_array([lists.slice(0, 1), lists.slice(1)]))
    assert plain.type == pa.large_list(pa.string())
    assert plain.take(pa.array([3, 0, 1])).to_pylist() == [["c", None], ["a", "b"], None]
