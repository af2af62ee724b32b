"""What the pages say to type is what the commands and the configuration take."""

from pathlib import Path

import pytest

from tests.docs.written import ROOT, Piece, commands, faults, pages, pieces


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_command_setting_path_and_target_of_a_page_is_there(page: Path) -> None:
    found = [f"{piece.place}: {fault}" for piece in pieces(page) for fault in faults(piece)]
    assert not found, "\n" + "\n".join(found)


def test_the_pages_have_commands() -> None:
    assert sum(len(list(commands(piece))) for page in pages() for piece in pieces(page)) > 100


def found(tmp_path: Path, text: str) -> list[str]:
    page = tmp_path / "page.md"
    page.write_text(text)
    return [f"{piece.place}: {fault}" for piece in pieces(page) for fault in faults(piece)]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("A\n\n    mind trian conf/x.yaml\n", "page.md:3: mind has no command trian; there are preprocess, init"),
        ("```bash\nmind train x.yaml --epochs 3\n```", "page.md:2: mind train has no option --epochs"),
        ("```bash\n.venv/bin/mind train x.yaml -s model.k=3\n```", "page.md:2: --set model.k=3: no such setting"),
        (
            "```\ncd x && mind train x.yaml \\\n  --set train.epochs=many\n```",
            "page.md:2: --set train.epochs='many': must be",
        ),
        ("Say `mind train CONF\n--set model.intrests=8` now.", "page.md:1: --set model.intrests=8: no such setting"),
        (
            "`mind evaluate CONF --split tests`",
            "page.md:1: mind evaluate --split tests: must be one of test, validation",
        ),
        ("`mind recommend CONF --top many`", "page.md:1: mind recommend --top many: must be a number"),
        ("```bash\nmind train x.yaml --home\n```", "page.md:2: mind train --home lacks its value"),
        ("`mind train CONF --preset papper`", "page.md:1: mind train --preset papper: there are context, default"),
        ("`mind tune CONF --preset default`", "page.md:1: mind tune --preset default: there are quick"),
        ("`mind tune CONF --set search.trails=3`", "page.md:1: --set search.trails=3: no such setting"),
        ("`mind tune CONF --set settings.train.epoch=3`", "page.md:1: --set settings.train.epoch=3: no such setting"),
        ("`mind submit trian CONF --set a.b=1`", "page.md:1: mind submit has no command trian"),
        ("`mind submit train CONF --detached`", "page.md:1: mind submit train has no option --detached"),
        ("`mind jobs lst`", "page.md:1: mind jobs has no command lst"),
        ("`mind jobs status A1 b2`", "page.md:1: mind jobs status takes 1 words, here are A1, b2"),
        ("a\n\nwith `--set train.shard=true`", "page.md:3: --set train.shard=true: no such setting"),
        ("with `--agian 5`", "page.md:1: no command of mind has an option --agian"),
        ("`train.batchsize: 3` and `train.batch_size`", "page.md:1: no setting train.batchsize"),
        ("`pipelines/log/nowhere.py`", "page.md:1: no file pipelines/log/nowhere.py"),
        ("`make quickstrat`", "page.md:1: no target make quickstrat"),
        ("```bash\nmake tset\n```", "page.md:2: no target make tset"),
        ("```yaml\ntrain: {epoch: 3}\n```", "page.md:2: no setting train.epoch"),
        ("```yaml\nname: x\ndata: {event: {path: p}}\n```", "page.md:2: 2 validation errors for Config data.events"),
        ("```yaml\ncampaign: x\nbase: b\nspace: {model.k: {grid: [1]}}\n```", "page.md:2: no setting model.k"),
    ],
)
def test_a_misnamed_thing_is_found_with_its_line(tmp_path: Path, text: str, fault: str) -> None:
    assert [each[: len(fault)] for each in found(tmp_path, text)] == [fault]


@pytest.mark.parametrize(
    "text",
    [
        "`mind STAGE CONF`, `mind jobs`, `mind submit STAGE CONF --address URL`, `mind plan --events 1e9 ...`",
        "`mind tune CONF --set settings.train.epochs=8 --set search.trials=40 --set campaign=NAME`",
        "Say `mind train --home` and where.",
        "`--set KEY=VALUE`, `--set train.workers=N`, `ray.put`, `train.py`, `data.items.features.brand.min_count`",
        "```console\n$ mind train x.yaml --set train.epoch=3\nmind: error: unknown key\n```",
        "```bash\nAWS_REGION=x mind submit --detach train x.yaml --set train.workers=8  # eight\nray up mind.yaml\n```",
        "```python\nmind trian\n```\n\nmind trian, a user's mind",
        "```yaml\nevents: {path: of another file}\n```",
    ],
)
def test_placeholders_shown_mistakes_and_other_programs_pass(tmp_path: Path, text: str) -> None:
    assert found(tmp_path, text) == []


def test_a_span_over_two_lines_is_one_command(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("First\n\nthen `mind\nevaluate CONF` ends\n")
    (piece,) = pieces(page)
    assert piece == Piece("page.md:3", "mind evaluate CONF", "span")
    assert list(commands(piece)) == [["evaluate", "CONF"]]
