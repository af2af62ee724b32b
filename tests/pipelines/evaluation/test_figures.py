"""Figures of an evaluation."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import torch

from mind_core.sequences import Histories
from pipelines.evaluation.figures import ShownUsers, coupling_figure

DOLLARS = r"2 for $\oops{$"  # as mathematics it cannot be drawn


def test_dollars_in_names_are_no_mathematics() -> None:
    items = pa.table({"id": [7, 8], "show_title": [DOLLARS, DOLLARS]})
    model: Any = SimpleNamespace(items=items, item_names=lambda: {2: DOLLARS, 3: DOLLARS})
    histories = Histories(torch.tensor([[2, 3]]), torch.ones(1, 2, dtype=torch.bool), {})
    own = torch.ones(1, 2, dtype=torch.bool)
    users = ShownUsers([DOLLARS], histories, torch.zeros(1, 2, 4), own, torch.eye(2).unsqueeze(0))
    figure = coupling_figure(model, users)
    figure.savefig(io.BytesIO())
    axes = figure.axes[0]
    texts = [axes.get_title(loc="left"), *(label.get_text() for label in axes.get_xticklabels())]
    assert all(DOLLARS in text for text in texts)
