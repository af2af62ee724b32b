import json
import math
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError, model_validator

from pipelines.config.explain import Layer, explain
from pipelines.config.load import available_presets, config_hash, load_config, resolved
from pipelines.config.redact import redact
from pipelines.config.schema import Config
from pipelines.errors import UserError


def mistake(path: Path, *sets: str, preset: str | None = None) -> str:
    """The message of loading, which must be one line."""
    with pytest.raises(UserError) as caught:
        load_config(path, sets, preset)
    message = str(caught.value)
    assert "\n" not in message
    return message


def write(conf: Path, text: str) -> Path:
    conf.write_text(conf.read_text() + text)
    return conf


# ---------------------------------------------------------------- precedence


def test_defaults_stand_below_the_files_preset_below_file_below_set(conf: Path) -> None:
    assert load_config(conf).model.resample_logits is False
    write(conf, "preset: paper\n")
    assert load_config(conf).model.resample_logits is True
    write(conf, "model: {resample_logits: false}\n")
    assert load_config(conf).model.resample_logits is False
    assert load_config(conf, ["model.resample_logits=true"]).model.resample_logits is True


def test_a_preset_asked_for_on_the_command_line_means_what_it_says_whatever_the_file_has_tuned(conf: Path) -> None:
    write(conf, "model: {interests: 8, resample_logits: false}\n")
    assert load_config(conf, preset="paper").model.resample_logits is True
    assert load_config(conf, preset="youtube_dnn").model.interests == 1
    assert load_config(conf, ["model.resample_logits=false"], "paper").model.resample_logits is False


def test_sections_are_merged_key_by_key_and_lists_replaced(conf: Path) -> None:
    write(conf, "model: {dim: 8, hidden: [4, 4]}\n")
    config = load_config(conf, ["model.hidden=[16]", "model.interests=2"])
    assert (config.model.dim, config.model.hidden, config.model.interests) == (8, (16,), 2)


def test_a_later_set_wins(conf: Path) -> None:
    assert load_config(conf, ["train.epochs=3", "train.epochs=4"]).train.epochs == 4


def test_preset_option_replaces_the_files_preset(conf: Path) -> None:
    write(conf, "preset: popularity\n")
    assert load_config(conf).model.encoder == "popularity"
    assert load_config(conf, ["preset=paper"]).preset == "paper"
    config = load_config(conf, preset="youtube_dnn")
    assert (config.preset, config.model.encoder) == ("youtube_dnn", "mean")


@pytest.mark.parametrize("preset", available_presets())
def test_every_preset_is_valid_on_a_minimal_file(conf: Path, preset: str) -> None:
    assert load_config(conf, preset=preset).preset == preset


def test_mind_home_overrides_the_file_and_set_overrides_it(conf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIND_HOME", "/elsewhere")
    assert load_config(conf).home == "/elsewhere"
    assert load_config(conf, ["home=/asked"]).home == "/asked"


# ---------------------------------------------------------------- values


@pytest.mark.parametrize("text", [".inf", "inf"])
def test_infinity_is_written_either_way(conf: Path, text: str) -> None:
    assert load_config(conf, [f"model.attention_power={text}"]).model.attention_power == math.inf


def test_exponents_without_a_dot_are_numbers(conf: Path) -> None:
    write(conf, "optim: {learning_rate: 1e-2}\n")
    assert load_config(conf, ["data.events.exclude=[{column: n, reason: r, below: 1e3}]"]).optim.learning_rate == 0.01


def test_dates_stay_text(conf: Path) -> None:
    dates = ["data.split.validation_from=2024-01-01", "data.split.test_from=2024-02-01 12:00:00"]
    split = load_config(conf, ["data.split.protocol=temporal", *dates]).data.split
    assert (split.validation_from, split.test_from) == ("2024-01-01", "2024-02-01 12:00:00")


# ---------------------------------------------------------------- mistakes


def test_missing_file_is_named(tmp_path: Path) -> None:
    assert mistake(tmp_path / "no.yaml") == f"{tmp_path}/no.yaml: no such configuration file"


def test_broken_yaml_names_the_line(conf: Path) -> None:
    assert f"{conf}: line 7: not valid YAML" in mistake(write(conf, "model: [\n"))


def test_repeated_key_is_a_mistake_not_an_override(conf: Path) -> None:
    assert "line 6: not valid YAML, name appears twice" in mistake(write(conf, "name: again\n"))


def test_file_that_is_no_mapping(conf: Path) -> None:
    conf.write_text("- a\n")
    assert mistake(conf) == f"{conf}: must hold `key: value` lines, found ['a']"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("model: {sigam: 1}", "model.sigam: unknown key, did you mean model.sigma?"),
        ("sigma: 1", "sigma: unknown key, did you mean model.sigma?"),
        ("train: {qqq: 1}", "train.qqq: unknown key, allowed: workers, min_workers, batch_size, "),
        ("train: {workers: 0}", "train.workers=0: must be >= 1"),
        ("train: {workers: two}", "train.workers='two': must be an integer"),
        ("train: {patience: 1.5}", "train.patience=1.5: must be an integer"),
        ("train: {behaviour_dropout: 1}", "train.behaviour_dropout=1: must be < 1"),
        ("train: [1]", "train=[1]: must be a section of `key: value` lines"),
        ("model: {encoder: rnn}", "model.encoder='rnn': must be 'mind', 'mean' or 'popularity'"),
        ("model: {hidden: 64}", "model.hidden=64: must be a list, as [a, b]"),
        ("model: {sigma: -1}", "model.sigma=-1.0: must be >= 0"),
        ("model: {interests: 3, encoder: mean}", "model.interests=3: must be 1 with encoder: mean"),
        ("model: {encoder: mean}", "model.interests=4 (the default): must be 1 with encoder: mean"),
        (
            "model: {context: transformer, history: newest}",
            "model.context=transformer: needs train.labels_per_window, such as 16",
        ),
        ("model: {heads: 3}", "model.heads=3: must be such that dim (64) / heads is even"),
        (
            "model: {context: transformer, history: distinct}",
            "model.history='distinct': must be newest with context: transformer",
        ),
        (
            "model: {history: distinct}\ntrain: {labels_per_window: 4}",
            "train.labels_per_window: must be empty with model.history: distinct",
        ),
        (
            "model: {history: newest}\ntrain: {labels_per_window: 4, targets_per_user: 4}",
            "train.labels_per_window: must be empty with train.targets_per_user",
        ),
        ("model: {initial_logits: item, resample_logits: true}", "model.resample_logits=True: must be false with"),
        ("loss: {logq: maybe}", "loss.logq='maybe': must be true or false"),
        ("evaluate: {cutoffs: [10, 0]}", "evaluate.cutoffs.1=0: must be >= 1"),
        ("preset: papper", "preset='papper': must be one of context, default, paper, popularity, sasrec, youtube_dnn"),
        ("ray: {address: [1]}", "ray.address=[1]: must be text (in quotes)"),
        ("model: {sigma: -1}\ntrain: {workers: 0}", "model.sigma=-1.0: must be >= 0 (and 1 more)"),
    ],
)
def test_mistake_in_the_file_names_file_key_value_and_what_is_allowed(conf: Path, lines: str, message: str) -> None:
    assert mistake(write(conf, lines + "\n")).startswith(f"{conf}: {message}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train.workers=0", "--set train.workers=0: must be >= 1"),
        ("model", "--set model: must be key=value, for example model.dim=32"),
        ("model.hidden=[1", "--set model.hidden=[1: the value is not valid YAML; put it in quotes"),
        ("data.items.path=x", "--set: data.items.id: must be given"),
        ("data.split.held_out=0.6", "--set data.split.held_out=0.6: must be below 0.5"),
        ("data.split.test_from=1", "--set data.split: validation_from and test_from belong to protocol: temporal"),
        ("data.split.test_from=[1]", "--set data.split.test_from=[1]: must be text (in quotes) or a number"),
        (
            "data.items={path: i.csv, id: item, cold_start: true}",
            "--set data.items.cold_start=true: must be false without `features`",
        ),
        ("preset=x", "--set preset='x': must be one of context, default"),
    ],
)
def test_mistake_on_the_command_line_is_named_as_it_was_typed(conf: Path, text: str, message: str) -> None:
    assert mistake(conf, text).startswith(message)


@pytest.mark.parametrize(
    ("preset", "sets", "repeat"),
    [
        ("default", [], "memory"),
        ("paper", [], "none"),
        ("context", [], "never"),
        ("sasrec", [], "never"),
        ("context", ["evaluate.seen=keep"], "memory"),
        ("context", ["model.repeat=memory"], "memory"),
        ("default", ["model.repeat=never"], "never"),
    ],
)
def test_what_is_trained_on_follows_from_what_lists_show(conf: Path, preset: str, sets: list[str], repeat: str) -> None:
    assert load_config(conf, sets, preset=preset).model.repeat == repeat


def test_unknown_preset_option_lists_the_presets(conf: Path) -> None:
    assert (
        mistake(conf, preset="x")
        == "--preset 'x': must be one of context, default, paper, popularity, sasrec, youtube_dnn"
    )


def test_two_settings_of_different_sections_that_do_not_go_together_name_who_set_the_one(conf: Path) -> None:
    rest = "train.shard_items=true: must be false with loss.kind: full, which scores every item"
    assert mistake(conf, "train.shard_items=true", "loss.kind=full") == f"--set {rest}"
    write(conf, "train: {shard_items: true}\n")
    assert mistake(conf, "loss.kind=full") == f"{conf}: {rest}"
    auto = "train.shard_items=true: must be false with loss.kind: auto, which scores every item where there are few"
    assert mistake(conf, "loss.kind=auto") == f"{conf}: {auto}"


def test_a_mistake_of_the_whole_has_no_empty_key() -> None:
    class Pair(BaseModel):
        a: int
        b: int

        @model_validator(mode="after")
        def alike(self) -> "Pair":
            if self.a != self.b:
                raise ValueError("a and b differ")
            return self

    with pytest.raises(ValidationError) as caught:
        Pair.model_validate({"a": 1, "b": 2})
    layers = [Layer("defaults", {}), Layer("c.yaml", {"a": 1, "b": 2})]
    assert explain(caught.value, {"a": 1, "b": 2}, layers, Pair) == "c.yaml: a and b differ"


def test_missing_key_names_the_file(conf: Path) -> None:
    conf.write_text("data: {events: {path: a}}\n")
    assert mistake(conf) == f"{conf}: name: must be given"


def test_feature_within_a_table_gets_a_suggestion(conf: Path) -> None:
    table = "data.items={path: i.csv, id: item, features: {genre: {kin: multi}}}"
    assert mistake(conf, table).startswith(
        "--set data.items.features.genre.kin: unknown key, did you mean data.items.features.genre.kind?"
    )


# ---------------------------------------------------------------- what is stored


def test_resolved_is_strict_json_and_reads_back(conf: Path) -> None:
    config = load_config(conf, ["model.attention_power=inf", "model.hidden=[8, 4]"], "paper")
    text = json.dumps(resolved(config), allow_nan=False)
    assert Config.model_validate(json.loads(text)) == config


def test_passwords_appear_neither_in_resolved_nor_in_messages(conf: Path) -> None:
    uri = "https://ann:s3cret@host:5000/x"
    config = load_config(conf, [f"tracking.uri={uri}"])
    assert config.tracking.uri == uri
    assert resolved(config)["tracking"]["uri"] == "https://***@host:5000/x"
    assert "s3cret" not in mistake(conf, f"tracking.uri=[{uri}]")


@given(user=st.text("ab:@%", min_size=1), path=st.text("ab/", max_size=5))
def test_redact_leaves_nothing_of_the_user_part(user: str, path: str) -> None:
    assert redact(f"see http://{user}@host/{path}") == f"see http://***@host/{path}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("s3://key:secret@bucket/log", "s3://***@bucket/log"),
        ("s3://key:se/cr@et@bucket/log", "s3://***@bucket/log"),  # a raw slash: no URI, but still a secret
        ("abfs://box@acc.dfs.core.windows.net/p", "abfs://box@acc.dfs.core.windows.net/p"),  # a container is no secret
        ("abfs://box:pw@acc.dfs.core.windows.net/p", "abfs://***@acc.dfs.core.windows.net/p"),
        ("hdfs://node:9000/user/ann@work", "hdfs://node:9000/user/ann@work"),
        ("git+https://ghp_0123@github.com/x", "git+https://***@github.com/x"),
        ("postgresql://ann@host/runs", "postgresql://ann@host/runs"),
        ("abfs://b@a/p?client_id=1&client_secret=2&x=3", "abfs://b@a/p?client_id=1&client_secret=***&x=3"),
        ("https://a/p?sv=1&sig=2%3D.", "https://a/p?sv=1&sig=***"),
        ("s3://b/p?access_key=1&secret_key=2&region=eu", "s3://b/p?access_key=***&secret_key=***&region=eu"),
        (
            "'https://a/p?X-Amz-Credential=1&X-Amz-Signature=2': no",
            "'https://a/p?X-Amz-Credential=***&X-Amz-Signature=***': no",
        ),
        ("https://a/p?accessToken=1;pwd=2&PASSWORD=3", "https://a/p?accessToken=***;pwd=***&PASSWORD=***"),
        ("https://a/p?design=1&author=2&sigma=3", "https://a/p?design=1&author=2&sigma=3"),
        ("data/?key=1/x.csv", "data/?key=1/x.csv"),  # a local glob
    ],
)
def test_redact_hides_what_sounds_secret_and_nothing_else(text: str, expected: str) -> None:
    assert redact(text) == expected
    assert redact(f"see {text} and {text}") == f"see {expected} and {expected}"


def test_a_value_that_is_cut_short_shows_no_password(conf: Path) -> None:
    assert "s3cret" not in mistake(conf, f"tracking.uri=[https://ann:{'s3cret' * 20}@host]")


def test_hash_changes_with_what_is_computed_and_not_with_where(conf: Path) -> None:
    base = config_hash(load_config(conf))
    assert config_hash(load_config(conf, ["home=/x", "tracking.experiment=e", "ray.num_cpus=2"])) == base
    assert config_hash(load_config(conf, ["train.seed=1"])) != base
    data_only = config_hash(load_config(conf), ("data",))
    assert config_hash(load_config(conf, ["train.seed=1"]), ("data",)) == data_only


def test_a_setting_that_changes_no_result_may_change_between_a_crash_and_its_continuation(conf: Path) -> None:
    base = config_hash(load_config(conf))
    for same in ("train.threads=1", "train.max_failures=9", "evaluate.top_n=5", "train.profile=true",
                 "evaluate.new=5", "data.max_bad_fraction=0.1"):  # fmt: skip
        assert config_hash(load_config(conf, [same])) == base, same
    for other in ("train.workers=2", "train.patience=9", "evaluate.seen=keep", "data.min_user_events=2"):
        assert config_hash(load_config(conf, [other])) != base, other


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(
    dim=st.integers(1, 128).map(lambda quarter: 4 * quarter),
    power=st.floats(0, allow_nan=False),
    hidden=st.lists(st.integers(1, 16).map(lambda quarter: 4 * quarter), max_size=3),
)
def test_set_reads_back_what_it_was_given(conf: Path, dim: int, power: float, hidden: list[int]) -> None:
    config = load_config(conf, [f"model.dim={dim}", f"model.attention_power={power}", f"model.hidden={hidden}"])
    assert (config.model.dim, config.model.attention_power, config.model.hidden) == (dim, power, tuple(hidden))


@pytest.mark.parametrize("metric", ["ndcg", "coverage@20", "ndcg@0", "ndcg@x"])
def test_a_metric_that_does_not_exist_is_refused_before_anything_starts(conf: Path, metric: str) -> None:
    assert "train.metric" in mistake(conf, f"train.metric={metric}")


def test_interests_that_no_user_can_have_are_not_trained(conf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for history, asked, trained in ((50, 8, 5), (50, 6, 5), (64, 6, 6), (63, 6, 5), (1, 4, 1), (50, 4, 4)):
        config = load_config(conf, [f"model.interests={asked}", f"model.max_history={history}"])
        assert config.model.interests == trained
        said = f"model.interests={asked}: {trained} are trained" in capsys.readouterr().err
        assert said == (asked != trained)
    assert load_config(conf, ["model.interests=8", "model.adaptive_interests=false"]).model.interests == 8
