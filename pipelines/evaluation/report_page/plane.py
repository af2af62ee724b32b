"""One user on a plane: behaviours, interests and the items that they find, where their vectors differ most."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.textpath import TextPath
from torch import Tensor
from torch.nn import functional

from mind_core.inference import MINDRetriever, recommend
from mind_core.projection import principal_plane
from mind_core.sequences import full_histories
from pipelines.dataset.dataset import Dataset
from pipelines.dataset.tensors import train_counts
from pipelines.evaluation.report_page.look import Look
from pipelines.models.artifact import SavedModel

LOOKED_AT = 256  # users, of whom the one whose list is shared most evenly by the interests is drawn
BEHAVIOURS = 16  # at least, where anybody has so many
CLOUD = 1500  # of the most frequent items, behind
NAME = 32  # letters of an item
LETTERS = 8  # their size in points
NAMED = 4  # behaviours and items, each, of an interest
POINT = 1 / 72  # inch
SHAPE = 1.35  # of the plane, width over height


@dataclass(frozen=True)
class Marks:
    """Some items of the plane. places : (m, 2).  interest : (m,) whose colour they have.  names : what they are."""

    places: Tensor
    interest: Tensor
    names: list[str]


@dataclass(frozen=True)
class UserPlane:
    """A user of K' interests on the plane. explained : share of the variance along each axis.

    cloud : (n, 2) other items.  interests : (K', 2).  behaviours : distinct, of the largest coupling first.
    listed : the recommended items, the best first.
    """

    user: str
    explained: tuple[float, float]
    cloud: Tensor
    interests: Tensor
    behaviours: Marks
    listed: Marks


def user_plane(
    model: SavedModel, table: pa.Table, dataset: Dataset, depth: int, exclude_seen: bool
) -> UserPlane | None:
    """Place one user of `table` (rows of a split); None for a rule, or where nobody has a behaviour.

    Vectors are brought to length 1: what lies near in all directions has a high cosine. The plane is that of the
    behaviours and the listed items.
    """
    retriever = model.retriever
    if not isinstance(retriever, MINDRetriever):
        return None
    sequences = model.sequences(table)
    lengths = sequences.lengths
    longest = min(retriever.view.max_history, int(lengths.max()) if len(lengths) else 0)
    enough = min(max(BEHAVIOURS, 2**model.card.config.interests), longest)
    users = (lengths >= max(1, enough)).nonzero().squeeze(1)[:LOOKED_AT]
    if not len(users):
        return None
    found = recommend(retriever, sequences, users, depth, exclude_seen=exclude_seen)
    row = _most_even(found.interest)
    user, items, finder = users[row : row + 1], found.items[row], found.interest[row]
    items, finder = items[items > 0], finder[items > 0]
    histories = full_histories(sequences, user, retriever.view)
    vectors, own, weights = retriever.route(histories)
    kept, mask = own[0].nonzero().squeeze(1), histories.mask[0]
    had = histories.items[0][mask]
    coupling, strongest = weights[0][:, : len(mask)][:, mask].max(0)  # (L,) of each behaviour
    order = coupling.argsort(descending=True, stable=True)
    _, first = np.unique(had[order].numpy(), return_index=True)  # each item once, where it is coupled most
    chosen = order[torch.from_numpy(np.sort(first))]
    unit = functional.normalize(retriever.item_vectors, dim=-1)
    plane = principal_plane(torch.cat([unit[had[chosen]], unit[items]]))
    frequent = train_counts(model.items).argsort(descending=True, stable=True)[:CLOUD]
    names = model.item_names()
    ids = dataset.vocabulary("users")["id"].take(table["user"].take(pa.array(user.numpy())))
    return UserPlane(
        str(ids[0].as_py()),
        plane.explained,
        plane.place(unit[frequent]),
        plane.place(functional.normalize(vectors[0][kept], dim=-1)),
        Marks(plane.place(unit[had[chosen]]), strongest[chosen], [names[i] for i in had[chosen].tolist()]),
        Marks(plane.place(unit[items]), finder, [names[i] for i in items.tolist()]),
    )


def _most_even(interest: Tensor) -> int:
    """Row of (B, n) whose values are spread most evenly: of the largest entropy, the first among equals."""
    shares = functional.one_hot(interest).double().mean(1)
    return int((-torch.special.xlogy(shares, shares)).sum(1).argmax())


def plane_figure(plane: UserPlane, look: Look) -> Figure:
    """Draw the plane: a colour for each interest, circles for behaviours, squares for listed items, stars."""
    figure = Figure(figsize=(10.5, 7.4), layout="constrained")
    axes = figure.subplots()
    axes.scatter(*_xy(plane.cloud), s=5, color=look.cloud, linewidths=0, zorder=1)
    used = sorted({*plane.behaviours.interest.tolist(), *plane.listed.interest.tolist(), *range(len(plane.interests))})
    for j in used:
        colour = look.of(j)
        _marks(axes, plane.behaviours, j, marker="o", s=26, color=colour, alpha=0.55, linewidths=0, zorder=2)
        _marks(axes, plane.listed, j, marker="s", s=46, color=colour, edgecolors=look.ink, linewidths=0.8, zorder=3)
        if j < len(plane.interests):
            size = max(90, 820 * 0.6**j)  # the later ones smaller: one that lies below another shows round it
            axes.scatter(*_xy(plane.interests[j : j + 1]), marker="*", s=size, color=colour, edgecolors=look.ink,
                         linewidths=1.2, zorder=5)  # fmt: skip
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_xlabel(f"first principal component, {plane.explained[0]:.0%} of the variance")
    axes.set_ylabel(f"second, {plane.explained[1]:.0%}")
    _window(axes, torch.cat([plane.behaviours.places, plane.listed.places, plane.interests]))
    shapes = [
        Line2D([], [], marker=marker, color="none", markerfacecolor=look.soft, markeredgecolor=edge, markersize=size)
        for marker, edge, size in (("o", "none", 6), ("s", look.ink, 7), ("*", look.ink, 15), ("o", "none", 3))
    ]
    shapes[3].set_markerfacecolor(look.cloud)
    colours = [Line2D([], [], marker="o", color="none", markerfacecolor=look.of(j), markersize=7) for j in used]
    names = ["behaviour", "listed item", "interest", "other items", *(f"interest {j + 1}" for j in used)]
    figure.legend(shapes + colours, names, loc="outside right upper", fontsize=8.5, labelspacing=0.9)
    _name(figure, axes, plane, used, look)
    return figure


def _xy(places: Tensor) -> tuple[Any, Any]:
    return places[:, 0].numpy(), places[:, 1].numpy()


def _marks(axes: Axes, marks: Marks, interest: int, **style: object) -> None:
    places = marks.places[marks.interest == interest]
    if len(places):
        axes.scatter(*_xy(places), **style)  # type: ignore[arg-type]


def _window(axes: Axes, places: Tensor) -> None:
    """Show what the user has, with room for names; the cloud may lie outside."""
    low, high = places.amin(0), places.amax(0)
    middle, room = (low + high) / 2, (high - low).clamp(min=1e-3) * torch.tensor([1.3, 1.16])
    tall = float(torch.maximum(room[1], room[0] / SHAPE)) / 2
    x, y = middle.tolist()
    axes.set_xlim(x - SHAPE * tall, x + SHAPE * tall)
    axes.set_ylim(y - tall, y + tall)
    axes.set_aspect("equal", adjustable="box")


def _name(figure: Figure, axes: Axes, plane: UserPlane, used: list[int], look: Look) -> None:
    """Write names beside marks, those of listed items first, where they hide neither another name nor an interest."""
    figure.draw_without_rendering()  # so that places on the paper are known
    per_inch = figure.dpi
    taken = [
        _box(*_on_paper(axes, spot), size, size, per_inch)
        for places, size in ((plane.interests, 22), (plane.listed.places, 7))
        for spot in places.tolist()
    ]
    wanted = [
        (marks.places[n].tolist(), marks.names[n], marks is plane.listed)
        for place in range(NAMED)
        for marks in (plane.listed, plane.behaviours)
        for j in used
        for n in (marks.interest == j).nonzero().squeeze(1)[place : place + 1].tolist()
    ]
    frame, written = axes.get_window_extent(), set()
    for spot, name, bold in wanted:
        text = textwrap.shorten(name, NAME, placeholder="…") if " " in name else name[:NAME]
        x, y = _on_paper(axes, spot)
        wide, tall = TextPath((0, 0), text, size=LETTERS).get_extents().width + 2, 11
        for dx, dy, side in ((7, 0, "left"), (-9, 0, "right"), (7, 9, "left"), (7, -9, "left"), (-9, 9, "right"),
                             (-9, -9, "right")):  # fmt: skip
            centre = x + (dx + (wide / 2 if side == "left" else -wide / 2)) * per_inch * POINT
            box = _box(centre, y + dy * per_inch * POINT, wide, tall, per_inch)
            inside = frame.x0 <= box[0] and box[2] <= frame.x1 and frame.y0 <= box[1] and box[3] <= frame.y1
            if text in written or not inside or any(_touch(box, other) for other in taken):
                continue
            halo = [withStroke(linewidth=2.5, foreground=look.card)]
            axes.annotate(text, (spot[0], spot[1]), xytext=(dx, dy), textcoords="offset points", ha=side, va="center",
                          fontsize=LETTERS, color=look.ink if bold else look.soft, zorder=6,
                          path_effects=halo)  # fmt: skip
            taken.append(box)
            written.add(text)
            break


def _on_paper(axes: Axes, spot: list[float]) -> tuple[float, float]:
    """Pixels from the left and from the bottom."""
    x, y = axes.transData.transform(spot)
    return float(x), float(y)


def _box(x: float, y: float, wide: float, tall: float, per_inch: float) -> tuple[float, float, float, float]:
    """Left, bottom, right and top in pixels of what is so wide and tall in points, round a place."""
    half, rise = wide * per_inch * POINT / 2, tall * per_inch * POINT / 2
    return x - half, y - rise, x + half, y + rise


def _touch(one: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
