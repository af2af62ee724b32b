"""What a model looks wrong by: one line for each doubt, and what to do about it.

A newcomer reads numbers without knowing which are bad. Three signs need no experience: validation that only fell, a
model below the most popular items, an interest that finds nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

RATES = "--set optim.learning_rate and optim.table_learning_rate, a third of what they are"
SEARCH = "mind tune CONFIG.yaml --preset quick"


def fell_from_the_start(values: Sequence[float], metric: str) -> str | None:
    """Doubt a training whose first of at least three validations is its best.

    Examples
    --------
    >>> fell_from_the_start([0.0879, 0.0775, 0.0761], "recall@20")[:71]
    'Validation fell from its first report on (recall@20 .0879, .0775, .0761'
    >>> fell_from_the_start([0.08, 0.09, 0.07], "recall@20")
    """
    if len(values) < 3 or max(values[1:]) >= values[0]:
        return None
    shown = ", ".join(map(_figure, values[:4]))
    return (
        f"Validation fell from its first report on ({metric} {shown}): the model learns too fast. "
        f"Try {RATES}; or: {SEARCH}"
    )


def below_popularity(model: float, popularity: float, metric: str, users: str) -> str | None:
    """Doubt a model that the most popular items beat, on the same `users`.

    Examples
    --------
    >>> below_popularity(0.05, 0.06, "ndcg@20", "100 validation users")[:54]
    'Below popularity: ndcg@20 .0500 against .0600 on 100 v'
    """
    if model >= popularity:
        return None
    return (
        f"Below popularity: {metric} {_figure(model)} against {_figure(popularity)} on {users}: it is of no use yet. "
        f"Try {RATES}, or more epochs if validation still rises; or: {SEARCH}"
    )


def never_asked(shares: Sequence[float], least: float = 0.01) -> str | None:
    """Doubt interests that nearly no recommended item comes from.

    Parameters
    ----------
    shares : (K,) of the places in the lists, by the interest that filled them.
    least : a smaller share is as good as none.

    Examples
    --------
    >>> never_asked([0.6, 0.398, 0.002])[:52]
    'Of the recommended items 60 / 40 / 0 % come from eac'
    """
    idle = sum(share < least for share in shares)
    if len(shares) < 2 or not idle:
        return None
    told = " / ".join(f"{100 * share:.0f}" for share in shares)
    return (
        f"Of the recommended items {told} % come from each interest: {idle} of {len(shares)} "
        f"{'is' if idle == 1 else 'are'} as good as never asked. Try --set model.interests={len(shares) - idle}"
    )


def _figure(value: float) -> str:
    return f"{value:.4f}".removeprefix("0")
