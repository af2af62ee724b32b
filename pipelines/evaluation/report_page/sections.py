"""Which pictures a report has and what each says to see; where one cannot be drawn, why not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import pyarrow as pa
from matplotlib.figure import Figure

from pipelines.config.schema import Config
from pipelines.dataset.dataset import Dataset
from pipelines.dataset.splits import SplitName
from pipelines.evaluation import figures
from pipelines.evaluation.report import POPULARITY_BANDS, ModelReport, Report, cutoff_of, popularity_bands
from pipelines.evaluation.report_page import accuracy, interests, lists
from pipelines.evaluation.report_page.look import Look, Picture, percent
from pipelines.evaluation.report_page.plane import plane_figure, user_plane
from pipelines.evaluation.report_page.stored import ROUTING, Curves
from pipelines.models.artifact import SavedModel
from pipelines.words import counted

FEW = 0.05  # share of the hits below which an interest is hardly asked
ROUTING_NAMES = dict(zip(ROUTING, ("unmoved share", "entropy of the couplings", "cosine of interests"), strict=True))
NO_CATEGORIES = "the dataset has no categorical item feature (data.items.features)"


@dataclass
class Section:
    """A part of the page. absent : title and reason of each picture that there is not."""

    title: str
    pictures: list[Picture] = field(default_factory=list)
    absent: list[tuple[str, str]] = field(default_factory=list)

    def add(self, picture: Picture | None, title: str = "", reason: str = "") -> None:
        """Take a picture, or say why there is none."""
        if picture is not None:
            self.pictures.append(picture)
        else:
            self.absent.append((title, reason))


@dataclass(frozen=True)
class Found:
    """All that a report is made of.

    others : evaluated models of the same dataset, the reported one among them.
    curves : of its training; None where the store has none.
    """

    report: Report
    others: list[ModelReport]
    curves: Curves | None
    model: SavedModel
    dataset: Dataset
    config: Config
    split: SplitName

    @property
    def first(self) -> ModelReport:
        """The reported model."""
        return self.report.models[0]

    @property
    def is_rule(self) -> bool:
        """Whether it is of the preset popularity, with nothing that is learned."""
        return self.model.card.config.encoder == "popularity"

    @property
    def several(self) -> bool:
        """Whether it has more than one interest."""
        return len(self.first.interest_share) > 1


def sections(found: Found) -> list[Section]:
    """Name all pictures, section by section; they are drawn when they are asked for."""
    tables = found.dataset.tables(found.split)
    table = next(table for table in tables if len(table))  # there is one, as users were evaluated
    return [_accuracy(found), _interests(found), _users(found, table), _lists(found)]


def _accuracy(found: Found) -> Section:
    section, report, first = Section("What it finds"), found.report, found.first
    metric, cutoff = report.metric, cutoff_of(report.metric)
    groups = partial(accuracy.groups_figure, report)
    title = "Found again, and found new" if report.groups else "Recall, beside the rules"
    section.add(Picture("groups", title, _groups_caption(report), groups, wide=True))
    section.add(Picture("history", f"{metric} by length of the history", _history_caption(report),
                        partial(accuracy.bands_figure, report, "history")))  # fmt: skip
    section.add(Picture("popularity", f"recall@{cutoff} by popularity of the target", _cold_caption(report),
                        partial(accuracy.bands_figure, report, "popularity")))  # fmt: skip
    title = "By number of interests"
    if len(first.by_interests) > 1:
        caption = (
            f"{percent(max(band.size for band in first.by_interests) / report.users)} of the users are in one bar; "
            "those with more interests have longer histories, too: look at the picture by length before crediting the "
            "interests."
        )
        picture = Picture("by_interests", title, caption, partial(accuracy.by_interests_figure, report))
        section.add(picture)
    else:
        number = first.by_interests[0].name
        section.add(None, title, f"every user has {counted(int(number), 'interest')}")
    title, counts = "By K", {len(model.interest_share) for model in found.others}
    if found.is_rule:
        section.add(None, title, "a rule has no interests")
    elif len(counts) > 1:
        best = max(found.others, key=lambda model: model.metrics[metric])
        caption = (
            "Each point is an evaluated model of this dataset with its 95 % interval, the filled one the model of "
            f"this report; the best, {best.metrics[metric]:.4f}, has K = {len(best.interest_share)}."
        )
        section.add(Picture("by_k", title, caption, partial(accuracy.by_k_figure, found.others, metric, first.name)))
    else:
        section.add(None, title, "no evaluated model of this dataset has another K; train one with --set "
                                 "model.interests=1 and evaluate it")  # fmt: skip
    reason = "a rule is not trained" if found.is_rule else "MLflow's store has no report of its training"
    section.add(_learning(found), "How it learned", reason)
    return section


def _groups_caption(report: Report) -> str:
    first, rules = report.models[0], [model for model in report.models if model.path is None]
    cutoff = cutoff_of(report.metric)
    name = f"recall@{cutoff}"
    best = max(rules, key=lambda model: model.metrics[name])
    said = f"Of all targets the model finds {first.metrics[name]:.4f}"
    said += f", the best rule ({best.label}) {best.metrics[name]:.4f}"
    new = f"shelf_new/{name}"
    if report.groups and new in first.metrics:
        best = max(rules, key=lambda model: model.metrics[new])
        said += f"; on a shelf of new items {first.metrics[new]:.4f} against {best.metrics[new]:.4f} ({best.label})"
    return f"{said}; whiskers are 95 % intervals over users."


def _history_caption(report: Report) -> str:
    """Of the band with the most users, as few users say little."""
    metric, rules = report.metric, [model for model in report.models if model.path is None]
    place = max(range(len(rules[0].by_history)), key=lambda place: rules[0].by_history[place].size)
    band = report.models[0].by_history[place]
    best = max(rules, key=lambda model: model.by_history[place].metrics[metric])
    return (
        f"Of {counted(report.users, 'user')} {counted(band.size, 'has a history', 'have histories')} of {band.name}: "
        "there the model has "
        f"{band.metrics[metric]:.4f}, the best rule ({best.label}) {best.by_history[place].metrics[metric]:.4f}."
    )


def _cold_caption(report: Report) -> str:
    bands = report.models[0].by_popularity
    cold = [band for band in bands if band.name.startswith("cold")]
    name = f"recall@{cutoff_of(report.metric)}"
    head = bands[0].metrics[name]
    if not cold:
        return f"From left to right targets get rarer, and recall falls from {head:.4f}; none is a cold item."
    number = sum(band.size for band in cold)
    share = sum(band.size * band.metrics[name] for band in cold) / number
    return (
        f"Recall falls from {head:.4f} ({bands[0].name}) to {share:.4f} for the {number:,} targets that are cold "
        "items, of fewer than 5 train events."
    )


def _learning(found: Found) -> Picture | None:
    metric = found.report.metric
    if found.curves is None or not found.curves.points("train/loss")[0]:
        return None
    epochs, values = found.curves.points(f"validation/{metric}")
    caption = "The loss of each report; this training was not validated."
    if values:
        best = int(np.argmax(values))
        caption = f"The best validation, circled, is number {best + 1} of {len(values)}, at epoch {epochs[best]:.1f}"
        caption += ": it was still rising." if best == len(values) - 1 else "; what follows is overfitting."
    return Picture("learning", "How it learned", caption, partial(accuracy.learning_figure, found.curves, metric))


def _interests(found: Found) -> Section:
    section, first = Section("What the interests do"), found.first
    if not found.several:
        reason = "the model has one interest"
        for title in ("Who fills the lists", "Interests in a user's list", "Apart and decided", "Routing, by epoch"):
            section.add(None, title, reason)
        return section
    most, least = max(first.hit_share), min(first.hit_share)
    best, worst = (first.hit_share.index(share) + 1 for share in (most, least))
    caption = f"Interest {best} makes {percent(most)} of the hits and interest {worst} makes {percent(least)}"
    caption += f": below {percent(FEW)} one is hardly asked." if least < FEW else ": all are asked."
    section.add(Picture("usage", "Who fills the lists", caption, partial(interests.usage_figure, first)))
    alone = sum(row[0] for row in first.lists.used_by_interests[1:])
    users = sum(map(sum, first.lists.used_by_interests[1:]))
    caption = (
        f"{percent(alone / max(1, users))} of the users with several interests have lists that one interest filled "
        "alone: for them the others change nothing."
    )
    section.add(Picture("used", "Interests in a user's list", caption, partial(interests.used_figure, first)))
    title = "Apart and decided"
    if (worth := first.interests) is not None:
        entropy = "–" if worth.entropy is None else f"{worth.entropy:.2f}"
        caption = (
            f"Of {counted(worth.users, 'user')} the mean cosine is {worth.cosine:.2f} (1 = one vector several times), "
            f"the entropy of the couplings {entropy}, and {worth.overlap:.0%} of two lists of {worth.depth} are the "
            "same items."
        )
        section.add(Picture("spread", title, caption, partial(interests.spread_figure, first), wide=True))
    else:
        section.add(None, title, "no user has a history long enough for two interests")
    section.add(_routing(found), "Routing, by epoch", "MLflow's store has no such report of its training")
    return section


def _routing(found: Found) -> Picture | None:
    curves = found.curves
    if curves is None or not curves.points(ROUTING[0])[0]:
        return None
    share = curves.points(ROUTING[0])[1][-1]
    caption = (
        f"After training {percent(share)} of the behaviours are where the initial logits alone would have put them "
        "(100 % = routing changes nothing)."
    )
    return Picture("routing", "Routing, by epoch", caption, partial(accuracy.routing_figure, curves, ROUTING_NAMES))


def _users(found: Found, table: pa.Table) -> Section:
    section, model = Section("Users, one by one"), found.model
    plane = user_plane(model, table, found.dataset, found.first.lists.depth, found.report.seen == "filter")
    title = "A user's interests, behaviours and list"
    if plane is not None:
        caption = (
            f"User {plane.user}: a star was made of the circles of its colour and finds the squares of its colour; "
            "stars that lie together are one interest, several times."
        )
        if not found.several:
            caption = (
                f"User {plane.user}: one star, made of all circles, finds all squares, those nearest in direction."
            )
        section.add(Picture("plane", title, caption, partial(plane_figure, plane), wide=True))
    else:
        section.add(None, title, "a rule has no vectors")
    users = figures.shown_users(model, table, found.dataset)
    coupling, retrieved = "Which behaviour goes to which interest", "What each interest finds"
    if users is None:
        reason = "nobody has a history long enough for all interests" if found.several else "the model has one interest"
        section.add(None, coupling, reason)
        section.add(None, retrieved, reason)
        return section

    def heat(look: Look) -> Figure:
        return figures.coupling_figure(model, users, look.shades)

    def found_by(look: Look) -> Figure:
        drawn = figures.retrieved_figure(model, users, found.dataset, look.line)
        assert drawn is not None  # as there is a feature
        return drawn

    caption = (
        "A row of dark cells is what an interest is made of: its names should have something in common, and not the "
        "same place for every user."
    )
    section.add(Picture("coupling", coupling, caption, heat, wide=True))
    if found.first.lists.feature is None:
        section.add(None, retrieved, NO_CATEGORIES)
    else:
        caption = (
            f"Bars of one user should differ in their {found.first.lists.feature}: equal bars are one interest, "
            "several times."
        )
        section.add(Picture("retrieved", retrieved, caption, found_by, wide=True))
    return section


def _lists(found: Found) -> Section:
    section, report, first = Section("What the lists are made of"), found.report, found.first
    counts = found.dataset.items()["train_count"].to_numpy()
    usual = float((counts.astype(np.float64) ** 2).sum() / max(1, counts.sum()))
    by_rank = first.lists.popularity_by_rank
    caption = (
        f"The model's first place goes to an item of {by_rank[0]:,.0f} train events on average, its last to one of "
        f"{by_rank[-1]:,.0f}; an average train event is of an item with {usual:,.0f}."
    )
    section.add(Picture("by_rank", "How popular is each place?", caption, partial(lists.by_rank_figure, report, usual)))
    bands = popularity_bands(counts)
    catalogue = (np.bincount(bands, minlength=len(POPULARITY_BANDS)) / max(1, len(bands))).tolist()
    sizes = {band.name: band.size for band in first.by_popularity}
    caption = (
        f"{percent(first.lists.band_share[0])} of the model's places go to the head, the most popular 1 % of the "
        f"items, which is {percent(sizes.get('head', 0) / report.targets)} of the targets."
    )
    section.add(Picture("places", "Where do the places go?", caption, partial(lists.places_figure, report, catalogue)))
    depth = first.lists.depth
    caption = (
        f"Lists of {depth} name {percent(first.metrics[f'coverage@{depth}'])} of the catalogue, with a Gini of "
        f"{first.lists.gini:.2f} (0 = all items as often, 1 = one item always)."
    )
    section.add(Picture("concentration", "How many items are seen at all?", caption,
                        partial(lists.concentration_figure, report), wide=True))  # fmt: skip
    diversity, calibration = "How various is a list?", "Does the list look like the history?"
    if f"list/diversity@{depth}" not in first.metrics:
        section.add(None, diversity, NO_CATEGORIES)
        section.add(None, calibration, NO_CATEGORIES)
        return section
    section.add(Picture("diversity", diversity, _diversity_caption(first), partial(lists.diversity_figure, report)))
    name = f"list/calibration@{depth}"
    best = min((model for model in report.models if name in model.metrics), key=lambda model: model.metrics[name])
    own = f"the model's are {first.metrics[name]:.2f} off" if best is not first else "they are the model's own"
    caption = (
        f"The lists of {best.label} are nearest to the histories ({best.metrics[name]:.2f}), {own} (0 = the same "
        f"shares of {first.lists.feature})."
    )
    section.add(Picture("calibration", calibration, caption, partial(lists.calibration_figure, report), wide=True))
    return section


def _diversity_caption(model: ModelReport) -> str:
    depth = model.lists.depth
    within, across = (model.metrics.get(f"list/diversity_{kind}@{depth}") for kind in ("within", "across"))
    if within is None or across is None:
        return f"Two items of a list differ in {model.lists.feature} by {model.metrics[f'list/diversity@{depth}']:.2f}."
    sense = "divide the taste" if across > within + 0.01 else "do not divide the taste"
    return (
        f"Two items that different interests found differ by {across:.3f} in {model.lists.feature}, two of one "
        f"interest by {within:.3f}: the interests {sense}."
    )


def names_of(all_sections: Sequence[Section]) -> list[str]:
    """List the names of the pictures."""
    return [picture.name for section in all_sections for picture in section.pictures]
