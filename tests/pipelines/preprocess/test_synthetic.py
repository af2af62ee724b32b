from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipelines.preprocess import synthetic
from pipelines.preprocess.synthetic import generate


def test_sizes_are_as_asked_and_the_seed_fixes_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthetic, "BLOCK_EVENTS", 2000)
    first, second = (generate(tmp_path / name, events=10_007, users=500, items=100) for name in "ab")
    log = pq.read_table(first.events)
    assert log.num_rows == 10_007
    assert len(log["user_id"].unique()) == 500
    assert log["item_id"].to_numpy().max() < 100
    assert len(list(first.events.iterdir())) >= 5
    assert log.equals(pq.read_table(second.events))
    assert first.items is not None
    assert first.profile is not None
    assert pq.read_table(first.items).column_names == ["item_id", "category", "price"]
    assert pq.read_table(first.profile).num_rows == 500


def test_users_keep_to_their_interests_and_stay_a_while(tmp_path: Path) -> None:
    made = generate(tmp_path, events=50_000, users=300, items=400, interests_per_user=3, clusters=20, features=False)
    assert made.items is None
    log = pq.read_table(made.events).sort_by([("user_id", "ascending"), ("time", "ascending")])
    user, item = log["user_id"].to_numpy(), log["item_id"].to_numpy()
    cluster = pq.read_table(made.truth)["cluster"].to_numpy()[item]
    interests = np.array(pq.read_table(made.interests)["clusters"].to_pylist())
    assert all(len(set(each)) == 3 for each in interests.tolist())
    inside = (interests[user] == cluster[:, None]).any(axis=1).mean()
    assert inside == pytest.approx(1 - synthetic.NOISE * 17 / 20, abs=0.01)
    same = (cluster[1:] == cluster[:-1])[user[1:] == user[:-1]].mean()
    assert same > 0.65, "interests are visited in stretches"


def test_items_of_a_cluster_are_zipf_distributed(tmp_path: Path) -> None:
    made = generate(tmp_path, events=200_000, users=1000, items=200, interests_per_user=2, clusters=2, features=False)
    count = np.sort(np.bincount(pq.read_table(made.events)["item_id"].to_numpy(), minlength=200))[::-1]
    expected = np.log(2) / np.log(1.1)  # rank r has a chance in proportion to log(1 + 1/r), close to 1/r
    assert count[0] / count[18] == pytest.approx(expected, rel=0.1), "rank 1 of a cluster against its rank 10"


def test_impossible_sizes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="interests_per_user"):
        generate(tmp_path, events=10, users=20, items=5)
