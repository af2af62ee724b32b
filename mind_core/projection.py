"""Vectors on a plane, always the same way: what a picture of a user's interests and items is drawn from."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Plane:
    """The plane of the two directions in which some vectors differ most.

    centre : (d,).  axes : (2, d), orthonormal.  explained : share of the variance along each.
    """

    centre: Tensor
    axes: Tensor
    explained: tuple[float, float]

    def place(self, vectors: Tensor) -> Tensor:
        """(n, 2) places of vectors (n, d)."""
        return (vectors - self.centre) @ self.axes.T


def principal_plane(vectors: Tensor) -> Plane:
    """Find the plane of the two largest principal components of vectors (n, d).

    An axis points to where its largest coordinate, by size, is positive: a component alone has no sign. Where the
    vectors have fewer than two dimensions, the missing axis is zero.

    Examples
    --------
    >>> plane = principal_plane(torch.tensor([[0.0, 0.0, 1.0], [4.0, 0.0, 1.0], [2.0, 1.0, 1.0], [2.0, -1.0, 1.0]]))
    >>> plane.axes.abs().round().tolist(), [round(share, 2) for share in plane.explained]
    ([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], [0.8, 0.2])
    """
    vectors = vectors.double()
    centre = vectors.mean(0)
    _, sizes, rows = torch.linalg.svd(vectors - centre, full_matrices=False)
    axes, variance = torch.zeros(2, vectors.shape[1], dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    total = sizes.square().sum()
    for number in range(min(2, len(sizes))):
        if sizes[number] > 1e-9 * max(float(sizes[0]), 1e-30):
            row = rows[number]
            axes[number] = row * row[row.abs().argmax()].sign()
            variance[number] = sizes[number].square() / total
    return Plane(centre.float(), axes.float(), (float(variance[0]), float(variance[1])))
