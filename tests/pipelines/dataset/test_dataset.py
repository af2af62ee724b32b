import json
from pathlib import Path

import pytest

from pipelines.dataset.dataset import SCHEMA_VERSION, Dataset, FeatureInfo, Layout, Manifest, SplitCounts
from pipelines.errors import UserError
from pipelines.storage.publish import Mark, published


def manifest() -> Manifest:
    return Manifest(
        schema_version=SCHEMA_VERSION,
        name="tiny",
        config={},
        rows_read=3,
        set_aside={"duplicate": 1},
        events=2,
        users=1,
        items=2,
        splits={"train": SplitCounts(1, 2, 0, 0)},
        item_features=(FeatureInfo("price", "bucket", 5, edges=(1.5,)),),
        profile_features=(),
        time_unit="us",
        fingerprint="0",
    )


def test_a_manifest_survives_its_file() -> None:
    assert Manifest.from_json(manifest().to_json()) == manifest()
    assert manifest().item_rows == 4


def test_a_folder_without_a_manifest_is_no_dataset(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="mind preprocess"):
        Dataset.open(tmp_path)


def test_another_schema_version_is_refused(tmp_path: Path) -> None:
    raw = json.loads(manifest().to_json()) | {"schema_version": 0, "unheard_of": 1}
    Layout(tmp_path).manifest.write_text(json.dumps(raw))
    with pytest.raises(UserError, match="schema version 0"):
        Dataset.open(tmp_path)


def test_a_folder_is_published_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "sets" / "tiny"
    mark = Mark("mark.json")
    with published(target, mark) as folder:
        (folder / "version").write_text("1")
        (folder / mark.file).write_text('{"name": "tiny"}')
        assert not target.exists()
    with pytest.raises(RuntimeError), published(target, mark) as folder:  # noqa: PT012
        (folder / "version").write_text("half of 2")
        raise RuntimeError
    assert [path.name for path in target.parent.iterdir()] == ["tiny"]
    assert (target / "version").read_text() == "1"
    with published(target, mark) as folder:
        (folder / "version").write_text("2")
    assert [path.name for path in target.parent.iterdir()] == ["tiny"]
    assert (target / "version").read_text() == "2"


def test_what_a_killed_process_left_is_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "here")
    for name in (".tiny.partial-here-999999999", ".tiny.partial-elsewhere-999999999"):
        (tmp_path / name).mkdir()
    with published(tmp_path / "tiny", Mark("mark.json")):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == [".tiny.partial-elsewhere-999999999", "tiny"]
