"""A plane of principal components that is always the same."""

from __future__ import annotations

import pytest
import torch

from mind_core.projection import principal_plane
from tests.mind_core.given import generator


def test_the_plane_holds_more_variance_than_any_other_drawn_one() -> None:
    g = generator(0)
    vectors = torch.randn(40, 6, generator=g) * torch.tensor([1.0, 5.0, 1.0, 3.0, 1.0, 1.0])
    plane = principal_plane(vectors)
    variance = plane.place(vectors).square().sum() / (vectors - vectors.mean(0)).square().sum()
    assert variance.item() == pytest.approx(sum(plane.explained), abs=1e-5)
    for _ in range(50):
        drawn = torch.linalg.qr(torch.randn(6, 2, generator=g)).Q
        assert ((vectors - vectors.mean(0)) @ drawn).square().sum() <= plane.place(vectors).square().sum()


def test_it_depends_neither_on_the_order_of_the_vectors_nor_on_their_signs_mirror() -> None:
    vectors = torch.randn(20, 5, generator=generator(1))
    plane, turned = principal_plane(vectors), principal_plane(vectors.flip(0))
    torch.testing.assert_close(plane.axes, turned.axes)
    assert all(axis[axis.abs().argmax()] > 0 for axis in plane.axes)


@pytest.mark.parametrize("rows", [1, 2])
def test_vectors_on_a_line_or_a_point_have_a_zero_axis(rows: int) -> None:
    plane = principal_plane(torch.arange(rows * 3, dtype=torch.float32).view(rows, 3))
    assert plane.axes[rows - 1].tolist() == [0.0, 0.0, 0.0]
    assert plane.explained[1] == 0
    assert plane.place(torch.zeros(1, 3)).shape == (1, 2)
