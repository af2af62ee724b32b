"""Anything may be thrown at the readers of settings, logs, items and requests: they answer, or say one line, at once.

A number is the seed of an input; those that once failed stay in FAILED.
"""

from __future__ import annotations

import random
import resource
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest

from pipelines.config.load import load_config
from pipelines.config.schema import EventSource, ItemTable
from pipelines.dataset.feature_rows import FeatureRows
from pipelines.errors import UserError
from pipelines.log.formats import read_blocks
from pipelines.log.normalise import needed_columns, normalise
from pipelines.log.sources import fragments
from pipelines.models.answers import Answerer
from pipelines.models.artifact import load_model
from pipelines.models.requests import parse_json
from pipelines.preprocess.clean_log import log_times
from tests.faults.anything import request, settings, table_file
from tests.pipelines.small_model import PROFILE_AS_JSON, save_small

QUICK, ALL = 300, 20_000
SECONDS = 1.0  # of this process's CPUs, for one input
BYTES = 800 * 2**20  # that this process may grow by, over all inputs
FAILED: dict[str, list[int]] = {"settings": [], "log": [], "items": [79, 93, 19662], "request": []}


def try_settings(seed: int, folder: Path) -> None:
    file = folder / "conf.yaml"
    file.write_bytes(settings(random.Random(seed)))
    load_config(file)


def try_log(seed: int, folder: Path) -> None:
    rng = random.Random(seed)
    path = table_file(rng, folder, ["user", "item", "time", "kind", "tie"])
    more = {"event_type": "kind"} if rng.random() < 0.3 else {}
    more |= {"tie_break": "tie"} if rng.random() < 0.3 else {}
    more |= {"time_unit": rng.choice(["s", "ms", "us", "ns"])} if rng.random() < 0.3 else {}
    more |= {"format": "sessions"} if path.name.startswith("t.txt") else {}
    more |= {"exclude": [{"column": "item", "reason": "r", "prefix": "1"}]} if rng.random() < 0.2 else {}
    source = EventSource(path=str(path), **more)  # type: ignore[arg-type]
    columns = needed_columns(source)
    pieces = fragments(source, columns)
    unit, form = log_times(source, pieces)
    source = source.model_copy(update={"time_format": form})
    for piece in pieces:
        for block in read_blocks(piece, source, columns):
            found = normalise(block.table, source, unit, piece.shown)
            assert found.events.num_rows + sum(found.set_aside.values()) == block.table.num_rows


def try_items(seed: int, folder: Path) -> None:
    rng = random.Random(seed)
    kinds = ["categorical", "multi", "numeric", "bucket"]
    path = table_file(rng, folder, ["id", "a", "b", "c"])
    features = {name: {"kind": rng.choice(kinds), "separator": rng.choice([None, "|", "1"])} for name in "ab"}
    source = ItemTable.model_validate({"path": str(path), "id": "id", "features": features, "show": ["c"]})
    rows = FeatureRows.read(source)
    for encoder in rows.fit(np.ones(len(rows.ids), bool)):
        assert len(encoder.encode(rows.columns[encoder.name])) == len(rows.ids)


MODELS = (
    tempfile.TemporaryDirectory()
)  # goes with the process: a filter reads the items' columns when it is first asked


@lru_cache
def small_answerer() -> Answerer:
    """A model with profile features of every type."""
    return Answerer(load_model(save_small(Path(MODELS.name) / "small")))


def try_request(seed: int, folder: Path) -> None:
    answerer = small_answerer()
    wanted = answerer.reader.read(parse_json(request(random.Random(seed), answerer.ids.to_pylist(), PROFILE_AS_JSON)))
    (answer,) = answerer.answer([wanted])
    assert len(answer.ids) <= wanted.n
    assert np.isfinite(answer.scores).all()


TRIES: dict[str, Callable[[int, Path], None]] = {
    "settings": try_settings,
    "log": try_log,
    "items": try_items,
    "request": try_request,
}


def throw(name: str, seeds: Iterable[int], folder: Path) -> None:
    """Try inputs; fail with the seeds of those that did more than answer or say one line."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    wrong: dict[int, str] = {}
    for seed in seeds:
        place = folder / str(seed)
        place.mkdir()
        began = time.process_time()
        try:
            TRIES[name](seed, place)
        except UserError as error:
            if "\n" in str(error) or len(str(error)) > 2000:
                wrong[seed] = f"its message: {str(error)[:300]!r}"
        except Exception as error:
            wrong[seed] = f"{type(error).__name__}: {str(error)[:200]}"
        if time.process_time() - began > SECONDS:
            wrong[seed] = f"{time.process_time() - began:.1f} s"
        shutil.rmtree(place)
    kinds = "\n".join(f"{seed}: {what}" for seed, what in list(wrong.items())[:20])
    assert not wrong, f"{len(wrong)} inputs of {name}:\n{kinds}"
    assert 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) < BYTES


@pytest.mark.parametrize("name", TRIES)
def test_some_of_anything_is_answered_or_refused_in_one_line(name: str, tmp_path: Path) -> None:
    throw(name, [*FAILED[name], *range(QUICK)], tmp_path)


@pytest.mark.faults
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", TRIES)
def test_anything_is_answered_or_refused_in_one_line(name: str, tmp_path: Path) -> None:
    throw(name, range(QUICK, ALL), tmp_path)
