"""iALS of `implicit`, and EASE in closed form: contestants of `make bench-quality` (benchmarks/peers/lists.py).

    PYTHON -m benchmarks.peers.factor_models {ials,ease} DATA.npz OUT.npz SETTINGS

Both are fitted to the train split; a user of another split is what the history says, folded in. Their settings are
chosen on the validation users.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
from scipy.linalg.lapack import spotrf, spotri
from scipy.sparse import csr_matrix, identity

from benchmarks.peers.lists import Arrays, Score, Settings, Split, compete, counts_of, split_of, validator

MIRRORED = 1024  # rows and columns of a block


def by_count(split: Split, users: np.ndarray, catalogue: int) -> csr_matrix:
    """(B, V) float32, how often each of `users` did each item."""
    row, item = split.of(users)
    return csr_matrix((np.ones(len(row), np.float32), (row, item)), shape=(len(users), catalogue))


def ials(data: Arrays, settings: Settings) -> tuple[Score, dict[str, Any]]:
    """Fit iALS (Hu, Koren and Volinsky 2008) for each setting of the grid, keep the best.

    Confidence is alpha * (1 + log count). As `implicit` has it, an unknown pair has confidence 1.
    """
    from implicit.cpu.als import AlternatingLeastSquares
    from threadpoolctl import threadpool_limits

    counts, catalogue, value = counts_of(data), int(data["item_rows"]), validator(data, settings)
    unseen = counts == 0

    def confidence(split: Split, users: np.ndarray) -> csr_matrix:
        found = by_count(split, users, catalogue)
        found.data = 1 + np.log(found.data)
        return found

    def score_of(model: AlternatingLeastSquares) -> Score:
        def score(split: Split, users: np.ndarray) -> np.ndarray:
            with threadpool_limits(1, "blas"):
                factors = model.recalculate_user(np.arange(len(users)), confidence(split, users))
            scores = factors @ model.item_factors.T
            scores[:, unseen] = -np.inf
            return scores

        return score

    train = split_of(data, "train")
    matrix = confidence(train, np.arange(len(train)))
    tried: list[tuple[float, dict[str, Any]]] = []
    best: Score | None = None
    for factors, regularization, alpha in product(*(settings[name] for name in ("factors", "regularization", "alpha"))):
        model = AlternatingLeastSquares(
            factors=factors,
            regularization=regularization,
            alpha=alpha,
            iterations=settings["iterations"],
            num_threads=settings["threads"],
            random_state=settings["seed"],
        )
        with threadpool_limits(1, "blas"):  # implicit has threads of its own
            model.fit(matrix, show_progress=False)
        reached = value(score_of(model))
        if best is None or reached > max(other for other, _ in tried):
            best = score_of(model)
        tried.append((reached, {"factors": factors, "regularization": regularization, "alpha": alpha}))
    assert best is not None
    return best, _chosen(tried)


def ease(data: Arrays, settings: Settings) -> tuple[Score, dict[str, Any]]:
    """Fit EASE (Steck 2019): B = I - P / diag(P), P = (X'X + lambda I)^-1, X of 0 and 1; keep the best lambda.

    Where the catalogue has more than settings `items`, the most frequent of them alone: P is dense.
    """
    counts, catalogue, value = counts_of(data), int(data["item_rows"]), validator(data, settings)
    kept = np.sort(np.argsort(-counts, kind="stable")[: settings["items"]])
    kept = kept[counts[kept] > 0]
    train = split_of(data, "train")

    def binary(split: Split, users: np.ndarray) -> csr_matrix:
        found = by_count(split, users, catalogue)[:, kept]
        found.data[:] = 1
        return found

    rows = binary(train, np.arange(len(train)))
    gram = (rows.T @ rows).tocsr()
    popular = np.full(catalogue, -np.inf, np.float32)
    popular[kept] = np.log1p(counts[kept])

    def score_of(weights: np.ndarray) -> Score:
        def score(split: Split, users: np.ndarray) -> np.ndarray:
            own = binary(split, users)
            scores = np.full((len(users), catalogue), -np.inf, np.float32)
            scores[:, kept] = own @ weights
            scores[own.getnnz(1) == 0] = popular  # a user of whom nothing is known
            return scores

        return score

    tried: list[tuple[float, dict[str, Any]]] = []
    buffer = np.empty(gram.shape, np.float32)
    for regularization in settings["regularization"]:
        reached = value(score_of(ease_weights(gram, regularization, buffer)))
        tried.append((reached, {"regularization": regularization}))
    told = _chosen(tried)
    weights = ease_weights(gram, told["chosen"]["regularization"], buffer)  # again: two of them may not fit
    return score_of(weights), {**told, "items": len(kept)}


def ease_weights(gram: csr_matrix, regularization: float, buffer: np.ndarray) -> np.ndarray:
    """(n, n) float32, made in place in `buffer`, with a diagonal of zeros.

    Examples
    --------
    >>> gram = csr_matrix(np.array([[2, 1], [1, 2]], np.float32))
    >>> weights = ease_weights(gram, 1.0, np.empty((2, 2), np.float32))
    >>> [[round(float(each), 3) for each in row] for row in weights]  # P = [[3, -1], [-1, 3]] / 8
    [[0.0, 0.333], [0.333, 0.0]]
    """
    (gram + regularization * identity(gram.shape[0], np.float32, "csr")).astype(np.float32).toarray(out=buffer)
    factor, failed = spotrf(buffer.T, lower=1, clean=0, overwrite_a=1)  # symmetric: its transpose is Fortran's order
    if not failed:
        inverse, failed = spotri(factor, lower=1, overwrite_c=1)
    if failed:
        raise SystemExit(f"EASE: X'X + {regularization} I is not positive definite in float32")
    for start in range(0, len(inverse), MIRRORED):
        stop = min(start + MIRRORED, len(inverse))
        inverse[start:stop, stop:] = inverse[stop:, start:stop].T
        block = np.tril(inverse[start:stop, start:stop])
        inverse[start:stop, start:stop] = block + np.tril(block, -1).T
    inverse /= -np.diag(inverse).copy()
    np.fill_diagonal(inverse, 0)
    return inverse


def _chosen(tried: list[tuple[float, dict[str, Any]]]) -> dict[str, Any]:
    value, chosen = max(tried, key=lambda pair: pair[0])
    return {"chosen": chosen, "validation": value, "tried": [{**words, "validation": found} for found, words in tried]}


if __name__ == "__main__":
    compete({"ials": ials, "ease": ease})
