"""From a campaign's file to its settings, what is kept of it, and every mistake in one line."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import yaml

from pipelines.errors import UserError
from pipelines.tuning.load import Loaded, load_campaign, store_campaign, stored_campaign, write_state

CAMPAIGN = {
    "campaign": "few",
    "base": "tiny.yaml",
    "space": {"model.interests": {"grid": [1, 2, 4]}, "optim.learning_rate": {"log_uniform": [0.001, 0.1]}},
    "search": {"method": "random", "trials": 2},
}
FINGERPRINT = "f" * 64


@pytest.fixture
def file(conf: Path) -> Path:
    """A small campaign; its base lies beside it."""
    path = conf.with_name("few.yaml")
    return write(path)


def write(path: Path, **changes: object) -> Path:
    """The campaign with other sections; None leaves one out."""
    path.write_text(yaml.safe_dump({key: value for key, value in (CAMPAIGN | changes).items() if value is not None}))
    return path


def mistake(path: Path, *sets: str) -> str:
    with pytest.raises(UserError) as error:
        load_campaign(path, sets)
    assert "\n" not in str(error.value)
    return str(error.value)


def stored(loaded: Loaded, *sets: str) -> Loaded:
    return stored_campaign(loaded.campaign.campaign, loaded.base.home_path, sets)


# ---------------------------------------------------------------- settings


def test_a_minimal_campaign_loads(conf: Path) -> None:
    space = {"model.interests": {"grid": [1, 2]}}
    loaded = load_campaign(write(conf.with_name("few.yaml"), space=space, search=None))
    assert loaded.campaign.search.method == "grid"
    assert loaded.base.name == "tiny"
    assert loaded.base_source == str(conf)
    assert loaded.folder == conf.parent / "home" / "campaigns" / "few"


def test_settings_are_on_top_of_the_base_and_set_on_top_of_those(file: Path, conf: Path) -> None:
    conf.write_text(conf.read_text() + "train: {epochs: 9, batch_size: 64, patience: 7}\n")
    write(file, settings={"train": {"epochs": 5, "batch_size": 32}})
    train = load_campaign(file, ["settings.train.epochs=3"]).base.train
    assert (train.epochs, train.batch_size, train.patience) == (3, 32, 7)


def test_settings_are_on_top_of_the_campaigns_preset_and_that_on_top_of_the_base(file: Path, conf: Path) -> None:
    conf.write_text(conf.read_text() + "model: {dim: 8, sigma: 0.5, init_std: 0.5}\n")
    loaded = load_campaign(write(file, preset="paper", settings={"model": {"init_std": 0.2}}))
    model = loaded.base.model
    assert loaded.base.preset == "paper"
    assert (model.dim, model.sigma, model.init_std) == (8, 1.0, 0.2), "the base's, the preset's, the settings'"


def test_set_reaches_the_campaign_itself(file: Path) -> None:
    campaign = load_campaign(file, ["search.trials=7", "campaign=many", "stopping.method=none"]).campaign
    assert (campaign.search.trials, campaign.campaign, campaign.stopping.method) == (7, "many", "none")


def test_a_home_that_is_given_takes_the_place_of_the_bases(file: Path, tmp_path: Path) -> None:
    assert load_campaign(file, home=str(tmp_path / "there: #1")).folder == tmp_path / "there: #1" / "campaigns" / "few"


def test_resources_set_the_workers_of_trials_and_leave_the_bases(file: Path) -> None:
    loaded = load_campaign(write(file, settings={"train": {"workers": 4, "profile": True}}), ["resources.workers=2"])
    assert loaded.base.train.workers == 4
    assert (loaded.trials.train.workers, loaded.trials.train.use_gpu, loaded.trials.train.profile) == (2, False, False)
    assert load_campaign(file, ["resources.gpus=0.5"]).trials.train.use_gpu is True


def test_trials_are_the_base_but_for_where_they_run(file: Path) -> None:
    loaded = load_campaign(file)
    train, base = loaded.trials.train, loaded.base.train
    where = {"workers": base.workers, "use_gpu": base.use_gpu, "input": base.input, "profile": base.profile}
    assert train.model_copy(update=where) == base
    assert (train.input, loaded.trials.tracking.system_metrics) == ("memory", False)
    assert loaded.trials.model == loaded.base.model


# ---------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sarch": {}}, "sarch: unknown key, did you mean search?"),
        ({"epochs": 3}, "epochs: unknown key, allowed: campaign, base, preset, settings, space, search, "),
        ({"search": {"trails": 3}}, "search.trails: unknown key, did you mean search.trials?"),
        ({"search": {"trials": 0}}, "search.trials=0: must be >= 1"),
        ({"stopping": {"method": "hyperband"}}, "stopping.method='hyperband': must be 'asha', 'median' or 'none'"),
        ({"resources": {"cpus": 0}}, "resources.cpus=0: must be > 0"),
        ({"campaign": "a/b"}, "campaign='a/b': must be at most 100 letters, digits"),
        ({"campaign": "."}, "campaign='.': must be"),
        ({"campaign": ".."}, "campaign='..': must be"),
        ({"base": None}, "base: must be given"),
        ({"space": None}, "space: must be given"),
        ({"settings": {"train": {"epoch": 3}}}, "settings: train.epoch: unknown key, did you mean train.epochs?"),
        ({"settings": {"train": {"epochs": 0}}}, "settings: train.epochs=0: must be >= 1"),
        ({"settings": {"preset": "paper"}}, "settings.preset: is ignored within settings; give the campaign itself"),
        (
            {"preset": "papper"},
            "preset='papper': must be one of context, default, paper, popularity, sasrec, youtube_dnn",
        ),
        (
            {"space": {"model.intrests": {"choice": [1, 2]}}},
            "space: model.intrests: unknown key, did you mean model.interests?",
        ),
        (
            {"space": {"interests": {"choice": [1, 2]}}},
            "space: interests: unknown key, did you mean model.interests?",
        ),
        (
            {"space": {"train.workers": {"choice": [1, 2]}}},
            "space: train.workers: cannot vary between trials, give resources.workers",
        ),
        ({"space": {"model.interests": {"choice": [1, 0]}}}, "space: model.interests=0: must be"),
        ({"settings": {"train": {"input": "stream"}}}, "train.input=stream: trials share the train split in memory"),
        ({"preset": "popularity"}, "model.encoder=popularity: nothing is trained, so there is nothing to search"),
        (
            {"finish": {"against": {"model.interests": 3}}},
            "finish.against: model.interests=3: no trial has it; name a value of the space",
        ),
        ({"finish": {"against": {"model.dim": 8}}}, "finish.against: model.dim=8: no trial has it"),
        (
            {"finish": {"against": {"optim.learning_rate": 0.2}}},
            "finish.against: optim.learning_rate=0.2: no trial has it",
        ),
    ],
)
def test_mistake_names_the_file_the_key_and_the_way_out(file: Path, changes: dict[str, object], message: str) -> None:
    text = mistake(write(file, **changes))
    assert text.startswith(f"{file}: {message}")


@pytest.mark.parametrize("kind", ["choice", "grid"])
def test_an_empty_list_of_values_is_refused(file: Path, kind: str) -> None:
    text = mistake(write(file, space={"model.interests": {kind: []}}))
    assert text == f"{file}: space.model.interests.{kind}=[]: must name at least one value"


def test_a_base_that_is_not_there_names_where_it_is_looked_for(file: Path) -> None:
    text = mistake(write(file, base="conf/tiny.yaml"))
    assert text == (f"{file}: base=conf/tiny.yaml: no such file ({file.parent / 'conf/tiny.yaml'}); "
                    "it is looked for beside the campaign")  # fmt: skip


def test_a_mistake_in_the_base_names_the_base(file: Path, conf: Path) -> None:
    conf.write_text(conf.read_text() + "train: {epochs: 0}\n")
    assert mistake(file) == f"{conf}: train.epochs=0: must be >= 1"


def test_a_configuration_instead_of_a_campaign_is_told_apart(conf: Path) -> None:
    text = mistake(conf)
    assert text.startswith(f"{conf}: a configuration of data and model, not a campaign; ")
    assert "`base: tiny.yaml`" in text


def test_a_campaign_that_is_not_there(tmp_path: Path) -> None:
    assert mistake(tmp_path / "none.yaml") == f"{tmp_path / 'none.yaml'}: no such configuration file"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("search.trials=0", "--set search.trials=0: must be >= 1"),
        ("home=/x", "--set home: unknown key, allowed: campaign, base, "),
        ("train.epochs=3", "--set train: unknown key"),
        ("search", "--set search: must be key=value"),
    ],
)
def test_mistake_on_the_command_line_is_named_as_it_was_typed(file: Path, text: str, message: str) -> None:
    assert mistake(file, text).startswith(message)


# ---------------------------------------------------------------- what is stored


def test_a_stored_campaign_comes_back_equal(file: Path) -> None:
    changes = {
        "settings": {"train": {"epochs": 3}, "model": {"attention_power": math.inf, "hidden": [8, 4]}},
        "space": {
            "model.interests": {"grid": [1, 2, 4]},
            "model.iterations": {"integer": [1, 3], "when": {"model.interests": [2, 4]}},
            "model.adaptive_interests": {"choice": [True, False]},
            "loss.kind": {"choice": ["sampled", "full"]},
            "model.sigma": {"uniform": [0.5, 1]},
            "model.attention_power": {"choice": [1.0, math.inf]},
        },
        "finish": {"against": {"model.interests": 1}},
        "resources": {"cpus": 0.5, "workers": 2},
    }
    loaded = load_campaign(write(file, **changes))
    identity = store_campaign(loaded, FINGERPRINT)["id"]
    again = stored(loaded)
    assert again == loaded
    assert again.trials == loaded.trials
    assert store_campaign(again, FINGERPRINT)["id"] == identity, "and goes on"


def test_a_stored_campaign_takes_set_on_top(file: Path) -> None:
    loaded = load_campaign(file)
    store_campaign(loaded, FINGERPRINT)
    more = stored(loaded, "search.trials=9", "resources.concurrent=3")
    assert (more.campaign.search.trials, more.campaign.resources.concurrent) == (9, 3)
    assert more.base == loaded.base
    assert stored(loaded, "settings.train.epochs=3", "campaign=other").base.train.epochs == 3


def test_a_stored_campaign_does_not_need_its_files(file: Path, conf: Path) -> None:
    loaded = load_campaign(file)
    store_campaign(loaded, FINGERPRINT)
    file.unlink()
    conf.unlink()
    assert stored(loaded) == loaded


def test_a_home_that_was_moved_is_where_the_campaign_goes_on(file: Path, tmp_path: Path) -> None:
    loaded = load_campaign(file)
    store_campaign(loaded, FINGERPRINT)
    (tmp_path / "home").rename(tmp_path / "moved")
    again = stored_campaign("few", tmp_path / "moved")
    assert again.folder == tmp_path / "moved" / "campaigns" / "few"
    store_campaign(again, FINGERPRINT)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("settings.train.epochs=0", "--set settings: train.epochs=0: must be >= 1"),
        ("settings.train.epoch=3", "--set settings: train.epoch: unknown key, did you mean train.epochs?"),
        ("search.trials=0", "--set search.trials=0: must be >= 1"),
        ("finish.against={model.interests: 3}", "{source}: finish.against: model.interests=3: no trial has it"),
    ],
)
def test_a_mistake_on_resume_is_one_line_too(file: Path, text: str, message: str) -> None:
    loaded = load_campaign(file)
    store_campaign(loaded, FINGERPRINT)
    with pytest.raises(UserError) as error:
        stored(loaded, text)
    assert str(error.value).startswith(message.format(source=file))


def test_resuming_an_unknown_name_lists_the_known_ones(file: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        stored_campaign("few", tmp_path / "home")
    assert str(error.value) == (f"--resume few: no such campaign in {tmp_path / 'home' / 'campaigns'}; "
                                "give --home, or start it: mind tune CONF")  # fmt: skip
    for name in ("few", "another"):
        store_campaign(load_campaign(file, [f"campaign={name}"]), FINGERPRINT)
    with pytest.raises(UserError) as error:
        stored_campaign("fewer", tmp_path / "home")
    assert str(error.value).endswith("there are another, few")


def test_a_password_is_not_kept_so_that_resume_asks_for_the_file(file: Path) -> None:
    loaded = load_campaign(write(file, settings={"tracking": {"uri": "https://ann:s3cret@host:5000"}}))
    store_campaign(loaded, FINGERPRINT)
    assert "s3cret" not in (loaded.folder / "campaign.json").read_text()
    with pytest.raises(UserError) as error:
        stored(loaded)
    assert str(error.value) == (f"--resume few: its tracking.uri has a password, which is not kept; resume it by its "
                                f"file: mind tune {file}")  # fmt: skip
    store_campaign(loaded, FINGERPRINT)


# ---------------------------------------------------------------- what may change between two starts


def test_what_was_known_of_a_campaign_is_kept_when_it_goes_on(file: Path) -> None:
    loaded = load_campaign(file)
    store_campaign(loaded, FINGERPRINT)
    before = store_campaign(loaded, FINGERPRINT)
    write_state(loaded.folder, before | {"run_id": "abc"})
    assert store_campaign(loaded, FINGERPRINT)["run_id"] == "abc"
    assert store_campaign(loaded, FINGERPRINT)["run_id"] == "abc"
    assert [path.name for path in loaded.folder.iterdir()] == ["campaign.json"]


@pytest.mark.parametrize(
    "text",
    [
        "search.trials=9",
        "stopping={method: median, min_trials: 2}",
        "resources.concurrent=3",
        "resources.cpus=0.5",
        "resources.max_failures=0",
        "finish={choose: cheapest_within, refit: none}",
        "settings.train.threads=1",
        "settings.ray.num_cpus=8",
    ],
)
def test_a_campaign_goes_on_with_more_trials_and_in_other_circumstances(file: Path, text: str) -> None:
    store_campaign(load_campaign(file), FINGERPRINT)
    changed = load_campaign(file, [text])
    store_campaign(changed, FINGERPRINT)
    assert stored(changed).campaign == changed.campaign, "the last start is what --resume goes on with"


def test_other_finalists_go_on(file: Path) -> None:
    search = {"method": "random", "seeds": 3}
    store_campaign(load_campaign(write(file, search=search | {"finalists": 1})), FINGERPRINT)
    store_campaign(load_campaign(write(file, search=search | {"finalists": 2})), FINGERPRINT)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("space={model.interests: {grid: [1, 2, 4, 5]}}", "space"),
        ("settings.train.epochs=3", "base configuration or settings"),
        ("settings.train.seed=1", "base configuration or settings"),
        ("settings.evaluate.seen=keep", "base configuration or settings"),
        ("search.seeds=2", "search"),
        ("search.seed=1", "search"),
        ("resources.workers=2", "number of workers, or GPUs"),
    ],
)
def test_a_campaign_that_searches_something_else_is_refused_in_one_line(file: Path, text: str, part: str) -> None:
    loaded = load_campaign(file)
    store_campaign(loaded, FINGERPRINT)
    kept = (loaded.folder / "campaign.json").read_text()
    with pytest.raises(UserError) as error:
        store_campaign(load_campaign(file, [text]), FINGERPRINT)
    assert str(error.value) == (f"{file}: campaign few exists with another {part} ({loaded.folder}); go on with "
                                "it as it was: mind tune --resume few, or begin a new one: "
                                "--set campaign=NAME")  # fmt: skip
    assert (loaded.folder / "campaign.json").read_text() == kept


def test_another_dataset_is_refused(file: Path) -> None:
    loaded = load_campaign(file)
    store_campaign(loaded, FINGERPRINT)
    with pytest.raises(UserError, match="campaign few exists with another dataset"):
        store_campaign(loaded, "0" * 64)


def test_a_new_name_begins_a_new_campaign(file: Path) -> None:
    first = store_campaign(load_campaign(file), FINGERPRINT)
    second = store_campaign(load_campaign(file, ["search.seeds=2", "campaign=more"]), FINGERPRINT)
    assert first["id"] != second["id"]


@pytest.mark.parametrize("text", ["preset=paper", "base=other.yaml"])
def test_what_a_campaign_stands_on_cannot_change_when_it_is_resumed(file: Path, text: str) -> None:
    loaded = load_campaign(file)
    store_campaign(loaded, FINGERPRINT)
    with pytest.raises(UserError, match=rf"^--resume few: --set {text}: cannot change; start another one"):
        stored(loaded, text)


# ---------------------------------------------------------------- ready for any configuration


def test_quick_searches_any_configuration(conf: Path) -> None:
    loaded = load_campaign(conf, ready="quick")
    assert loaded.campaign.campaign == "tiny-quick"
    assert loaded.base_source == str(conf)
    assert loaded.base.train.epochs == 8
    assert {"optim.learning_rate", "model.interests"} <= set(loaded.campaign.space)


def test_quick_can_be_made_smaller(conf: Path) -> None:
    assert load_campaign(conf, ["search.trials=3"], ready="quick").campaign.search.trials == 3


def test_quick_leaves_the_interests_of_a_single_vector_alone(conf: Path) -> None:
    conf.write_text(conf.read_text() + "preset: youtube_dnn\n")
    loaded = load_campaign(conf, ready="quick")
    assert "model.interests" not in loaded.campaign.space
    assert loaded.campaign.finish.against is None


def test_a_campaign_is_not_searched_by_another(file: Path) -> None:
    with pytest.raises(UserError, match=r"few\.yaml: a campaign of its own; leave out --preset quick"):
        load_campaign(file, ready="quick")


def test_an_unknown_ready_campaign_names_those_there_are(conf: Path) -> None:
    with pytest.raises(UserError, match="--preset 'slow': must be one of quick"):
        load_campaign(conf, ready="slow")


def test_a_configuration_alone_is_told_of_quick(conf: Path) -> None:
    assert f"mind tune {conf} --preset quick" in mistake(conf)
