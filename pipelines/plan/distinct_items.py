"""How many distinct items a step touches: what its gathers, exchanges and updates are made of. Pure NumPy."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pipelines.plan.workload import Workload

Floats = npt.NDArray[np.float64]
BINS = 4_000  # of ranks, each a thousandth or so wider than the last


def distinct_items(workload: Workload, samples: float) -> float:
    """Estimate R, the distinct items of `samples` histories and labels, and of the negatives.

    R = sum_i 1 - exp(-(n_h p_i + n_u / V + n_p p_i^a / sum p^a)): n_h behaviours and labels, drawn from the popularity
    p_i ~ (h + i)^-s; n_u uniform negatives and n_p that follow p^a. Source: mind_core.training.Trainer._draw.
    """
    loss, items = workload.config.loss.of_items(workload.items), workload.items
    if loss.kind == "full":
        return items
    ranks = np.geomspace(workload.head, workload.head + items, BINS)
    width = np.diff(ranks)  # items of a bin
    popular = law(ranks, workload.zipf)
    flattened = law(ranks, workload.zipf * loss.popularity_power)
    drawn = samples * (workload.history + 1) * popular + loss.popularity_negatives * flattened
    each = drawn / width + loss.uniform_negatives / items
    return float((width * -np.expm1(-each)).sum())


def law(edges: Floats, exponent: float) -> Floats:
    """Return the shares of the bins between `edges` in the density x^-s."""
    power = 1 - exponent
    below = np.log(edges) if abs(power) < 1e-9 else edges**power / power
    shares: Floats = np.diff(below) / (below[-1] - below[0])
    return shares
