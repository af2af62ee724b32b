"""iALS of `implicit`, and EASE in closed form: contestants of `make bench-quality` (benchmarks/peers/lists.py).

    PYTHON -m benchmarks.peers.factor_models {ials,ease} DATA.npz OUT.npz SETTINGS

Both are fitted to the train split; a user of another split is what the history says, folded in. Their settings are
chosen on the validation users.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
    """Fit iALS (Hu, Koren and Volinsky 2008), its settings chosen one after the other.

    Confidence is 1 + alpha * (1 + log count), and 1 of an unknown pair.
    """
    from implicit.cpu.als import AlternatingLeastSquares
    from threadpoolctl import threadpool_limits

    counts, catalogue, value = counts_of(data), int(data["item_rows"]), validator(data, settings)
    unseen, train = counts == 0, split_of(data, "train")

    def confidence(split: Split, users: np.ndarray, alpha: float) -> csr_matrix:
        found = by_count(split, users, catalogue)
        found.data = 1 + alpha * (1 + np.log(found.data))
        return found

    def fitted(factors: int, regularization: float, alpha: float) -> Score:
        model = AlternatingLeastSquares(
            factors=factors,
            regularization=regularization,
            alpha=1.0,  # the matrix has it
            iterations=settings["iterations"],
            num_threads=settings["threads"],
            random_state=settings["seed"],
        )
        with threadpool_limits(1, "blas"):  # implicit has threads of its own
            model.fit(confidence(train, np.arange(len(train)), alpha), show_progress=False)

        def score(split: Split, users: np.ndarray) -> np.ndarray:
            with threadpool_limits(1, "blas"):
                vectors = model.recalculate_user(np.arange(len(users)), confidence(split, users, alpha))
            scores = vectors @ model.item_factors.T
            scores[:, unseen] = -np.inf
            return scores

        return score

    return one_by_one({name: settings[name] for name in ("alpha", "regularization", "factors")}, fitted, value)


def one_by_one(
    grid: Mapping[str, Sequence[Any]], fitted: Callable[..., Score], value: Callable[[Score], float]
) -> tuple[Score, dict[str, Any]]:
    """Choose each setting of the grid in turn, the others as chosen so far, or the first of theirs.

    Examples
    --------
    >>> made = lambda a, b: a + b  # what is scored, here by its own value
    >>> found, told = one_by_one({"a": [1, 5, 2], "b": [3, 4]}, made, float)
    >>> found, told["chosen"], len(told["tried"])
    (9, {'a': 5, 'b': 4}, 4)
    """
    chosen = {name: values[0] for name, values in grid.items()}
    best, tried = fitted(**chosen), list[tuple[float, dict[str, Any]]]()
    tried.append((value(best), chosen))
    for name, values in grid.items():
        for each in values[1:]:
            words = {**chosen, name: each}
            score = fitted(**words)
            reached = value(score)
            if reached > max(other for other, _ in tried):
                best = score
            tried.append((reached, words))
        chosen = _chosen(tried)["chosen"]
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
    best, spare = np.empty(gram.shape, np.float32), np.empty(gram.shape, np.float32)
    for regularization in settings["regularization"]:
        spare = ease_weights(gram, regularization, spare)
        reached = value(score_of(spare))
        if not tried or reached > max(other for other, _ in tried):
            best, spare = spare, best
        tried.append((reached, {"regularization": regularization}))
    return score_of(best), {**_chosen(tried), "items": len(kept)}


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
    weights = inverse.T  # the buffer as it was given
    weights /= -np.diag(inverse).copy()
    np.fill_diagonal(weights, 0)
    return weights


def _chosen(tried: list[tuple[float, dict[str, Any]]]) -> dict[str, Any]:
    value, chosen = max(tried, key=lambda pair: pair[0])
    return {"chosen": chosen, "validation": value, "tried": [{**words, "validation": found} for found, words in tried]}


if __name__ == "__main__":
    compete({"ials": ials, "ease": ease})
