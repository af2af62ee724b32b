import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from ray.exceptions import RayTaskError
from typer.testing import CliRunner

from jobs.cli import app
from pipelines.errors import UserError

STAGES = {  # command or module: the module that a command imports
    "preprocess": "preprocess.preprocess",
    "summary": "preprocess.summary",
    "append": "preprocess.append",
    "train": "training.start",
    "evaluate": "evaluation.evaluate",
    "report": "evaluation.report_page.command",
    "promote": "evaluation.promote",
    "recommend": "retrieval.recommend",
    "recommend_history": "retrieval.strangers",
    "similar": "retrieval.similar",
    "export": "retrieval.export",
    "towers": "retrieval.towers",
    "serve": "endpoint.serve",
    "tune": "tuning.tune",
    "dashboard": "tracking.dashboard",
    "synthetic": "preprocess.synthetic",
    "pipeline": "pipeline",
}
HEAVY = ("ray", "torch", "mlflow", "pyarrow", "pandas", "numpy", "pydantic")


class Stage:
    """A stage function that records its calls, and raises if it is told to."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
        self.error = error

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        self.calls.append((args, kwargs))
        if self.error is not None:
            raise self.error


def install(
    monkeypatch: pytest.MonkeyPatch, name: str, error: BaseException | None = None, names: Sequence[str] = ()
) -> Stage:
    """Put a recording stage in the place of the function NAME of its module, or of other `names` there."""
    module, stage = ModuleType(f"pipelines.{STAGES[name]}"), Stage(error)
    for each in names or (name,):
        setattr(module, each, stage)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return stage


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_help_imports_nothing_heavy() -> None:
    code = f"""
import sys
from jobs.cli import app
try:
    app(["--help"])
except SystemExit as stop:
    assert not stop.code
print("heavy:", [name for name in {HEAVY} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "preprocess" in done.stdout
    assert "heavy: []" in done.stdout


def test_version() -> None:
    assert run("--version").stdout.startswith("mind 0.")


@pytest.mark.parametrize(("command", "following"), [("preprocess", "train"), ("train", "evaluate")])
def test_stage_gets_the_config_and_the_next_command_keeps_the_options(
    monkeypatch: pytest.MonkeyPatch, conf: Path, command: str, following: str
) -> None:
    stage = install(monkeypatch, command)
    install(monkeypatch, "summary", names=("print_summary", "record_summary"))
    result = run(command, conf, "--preset", "paper", "-s", "train.epochs=3", "--set", "model.dim=8", "--home", "a: b")
    assert result.exit_code == 0, result.output
    ((config,), _) = stage.calls[0]
    assert (config.preset, config.train.epochs, config.model.dim, config.home) == ("paper", 3, 8, "a: b")
    options = "--preset paper --home 'a: b' --set train.epochs=3 --set model.dim=8"
    assert result.stdout == f"next: mind {following} {conf} {options}\n"


def test_next_command_and_mistakes_show_no_secret(monkeypatch: pytest.MonkeyPatch, conf: Path) -> None:
    install(monkeypatch, "train")
    sets = ("--set", "data.events.path=s3://key:s3cret@b/log", "--set", "tracking.uri=https://h/?token=s3cret")
    result = run("train", conf, *sets)
    assert "s3cret" not in result.output
    assert "--set 'data.events.path=s3://***@b/log' --set 'tracking.uri=https://h/?token=***'" in result.stdout
    install(monkeypatch, "train", UserError("s3://key:s3cret@b/log: no such file"))
    assert run("train", conf).stderr == "mind: error: s3://***@b/log: no such file\n"


def test_evaluate_passes_model_split_and_what_to_compare_with(monkeypatch: pytest.MonkeyPatch, conf: Path) -> None:
    stage = install(monkeypatch, "evaluate")
    arguments = ("--model", "models:/m-1", "--split", "validation", "--against", "paper", "--against", "x/y")
    assert run("evaluate", conf, *arguments).exit_code == 0
    assert stage.calls[0][1] == {"model": "models:/m-1", "split": "validation", "against": ["paper", "x/y"]}


def test_report_passes_model_and_split(monkeypatch: pytest.MonkeyPatch, conf: Path) -> None:
    stage = install(monkeypatch, "report")
    assert run("report", conf, "--model", "paper", "--split", "validation").exit_code == 0
    assert stage.calls[0][1] == {"model": "paper", "split": "validation"}
    assert run("report", conf, "--split", "train").exit_code == 2


def test_recommend_passes_users_top_and_out(monkeypatch: pytest.MonkeyPatch, conf: Path) -> None:
    stage = install(monkeypatch, "recommend")
    assert run("recommend", conf, "--user", "7", "-u", "x", "--top", "5", "--out", "a.csv").exit_code == 0
    ((config,), options) = stage.calls[0]
    assert config.evaluate.top_n == 5
    assert options == {"users": ["7", "x"], "out": Path("a.csv"), "model": None, "latest": False, "why": False}
    assert run("recommend", conf, "--all", "--latest").exit_code == 0
    assert (stage.calls[1][1]["users"], stage.calls[1][1]["latest"]) == (None, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "recommend: give either --user ID (may be repeated), --history ID,ID,... or --all"),
        (["--user", "1", "--all"], "recommend: give either --user ID (may be repeated), --history ID,ID,... or --all"),
        (
            ["--history", "1", "--all"],
            "recommend: give either --user ID (may be repeated), --history ID,ID,... or --all",
        ),
        (["--all", "--cap", "department"], "--cap department: must be COLUMN=N, for example department=3"),
        (["--all", "--cap", "a=0"], "--set lists.cap.a=0: must be >= 1"),
        (["--all", "--lambda", "-1"], "--set lists.diversity=-1.0: must be >= 0.0"),
        (
            ["--all", "--policy", "random"],
            "--set lists.policy='random': must be 'best', 'quota', 'round_robin' or 'greedy'",
        ),
        (
            ["--all", "--policy", "quota", "--lambda", "1"],
            "--set lists.diversity=1.0: must be left out without policy: greedy",
        ),
        (
            ["--all", "--where", "department != FUEL"],
            "--where department != FUEL: found FUEL at letter 15, where a number, a text in quotes, true or false "
            "must stand (text stands in quotes: 'FUEL')",
        ),
        (["--all", "--out", "a.xls"], "--out a.xls: must end in .parquet, .csv, .jsonl"),
        (["--all", "--top", "0"], "--set evaluate.top_n=0: must be >= 1"),
        (["--all", "--again", "-1"], "--set evaluate.again=-1: must be >= 0"),
        (["--all", "--again", "3", "--new", "99999999999"], "--set evaluate.new=99999999999: must be <= 10000"),
        (["--all", "--again", "3", "--top", "3"], "recommend: give either --top, or --again and --new"),
    ],
)
def test_recommend_refuses_what_makes_no_sense(conf: Path, arguments: list[str], message: str) -> None:
    result = run("recommend", conf, *arguments)
    assert (result.exit_code, result.stderr) == (2, f"mind: error: {message}\n")


def test_recommend_takes_rules_of_lists(monkeypatch: pytest.MonkeyPatch, conf: Path) -> None:
    stage = install(monkeypatch, "recommend")
    filters = ("--where", "department != 'FUEL'", "--deny", "a.txt", "--deny", "b.txt")
    more = ("--allow", "c.csv", "--stock", "s.parquet", "--cap", "department=3", "--cap", "my=col=2", "--lambda", "0.5")
    assert run("recommend", conf, "--all", "--why", *filters, *more).exit_code == 0
    ((config,), options) = stage.calls[0]
    assert options["why"]
    lists = config.lists
    assert (lists.where, lists.deny, lists.allow) == ("department != 'FUEL'", ["a.txt", "b.txt"], ["c.csv"])
    assert lists.stock is not None
    assert lists.stock.path == "s.parquet"
    assert lists.cap == {"department": 3, "my=col": 2}
    assert (lists.policy, lists.diversity) == ("greedy", 0.5)
    assert run("recommend", conf, "--all", "--quota", "3").exit_code == 0
    assert (stage.calls[1][0][0].lists.policy, stage.calls[1][0][0].lists.quota) == ("quota", 3)


def test_recommend_takes_a_history_and_similar_an_item(monkeypatch: pytest.MonkeyPatch, conf: Path) -> None:
    stage = install(monkeypatch, "recommend_history")
    assert run("recommend", conf, "--history", "3, 7,,x", "--history", "y", "--why").exit_code == 0
    assert stage.calls[0][0][1] == ["3", "7", "x", "y"]
    assert stage.calls[0][1] == {"out": None, "model": None, "why": True}
    alike = install(monkeypatch, "similar")
    assert run("similar", conf, "--item", "7", "--top", "3", "--where", "price < 5").exit_code == 0
    (config, items, top), options = alike.calls[0]
    assert (items, top, config.lists.where) == (["7"], 3, "price < 5")
    assert options == {"out": None, "model": None}
    assert run("similar", conf).exit_code == 2


def test_recommend_passes_quotas_and_refuses_those_that_leave_an_empty_list(
    monkeypatch: pytest.MonkeyPatch, conf: Path
) -> None:
    stage = install(monkeypatch, "recommend")
    keep = ("--set", "evaluate.seen=keep")
    assert run("recommend", conf, "--all", "--again", "5", "--new", "3", *keep).exit_code == 0
    assert stage.calls[0][0][0].evaluate.shelves == {"again": 5, "new": 3}
    for none in (("--again", "0", "--new", "0"), ("--again", "0"), ("--new", "0")):
        result = run("recommend", conf, "--all", *none, *keep)
        assert result.exit_code == 2
        assert result.stderr.endswith("a list must have places\n")
        assert result.stderr.count("\n") == 1
    result = run("recommend", conf, "--all", "--again", "5", "--set", "evaluate.seen=filter")
    assert result.exit_code == 2
    refused = "mind: error: --set evaluate.again=5: must be left out with seen: filter, which shows new items alone\n"
    assert result.stderr == refused
    assert len(stage.calls) == 1


def test_generate_writes_a_log_and_says_where(tmp_path: Path) -> None:
    result = run("generate", tmp_path, "--events", 300, "--users", 20, "--items", 40)
    assert result.exit_code == 0, result.output
    assert f"events: {tmp_path / 'events'}" in result.stdout
    assert list((tmp_path / "events").glob("*.parquet"))


def test_generate_refuses_sizes_that_cannot_be_met(tmp_path: Path) -> None:
    result = run("generate", tmp_path, "--items", 2)
    assert result.exit_code == 2
    assert result.stderr.startswith("mind: error: generate: need ")


def test_users_mistake_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    result = run("train", tmp_path / "no.yaml")
    assert result.exit_code == 2
    assert result.stderr == f"mind: error: {tmp_path}/no.yaml: no such configuration file\n"


def test_users_mistake_in_a_worker_is_one_line_as_well(monkeypatch: pytest.MonkeyPatch, conf: Path) -> None:
    # given what Ray makes of an exception in a task, and what Ray Data makes of that
    mistake = UserError("log.csv: no column\n 'user'")
    remote = RayTaskError("map", "forty lines of remote traceback", mistake).as_instanceof_cause()
    wrapped = RuntimeError("a stage failed")
    wrapped.__cause__ = remote
    for error in (mistake, remote, wrapped):
        install(monkeypatch, "preprocess", error)
        result = run("preprocess", conf)
        assert (result.exit_code, result.stderr) == (2, "mind: error: log.csv: no column 'user'\n")


def test_interrupt_is_one_line_and_exit_code_130(monkeypatch: pytest.MonkeyPatch, conf: Path) -> None:
    install(monkeypatch, "train", KeyboardInterrupt())
    result = run("train", conf)
    assert (result.exit_code, result.stderr) == (130, "mind: interrupted\n")


def test_unexpected_error_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch, conf: Path) -> None:
    install(monkeypatch, "train", ZeroDivisionError("bug"))
    result = run("train", conf)
    assert isinstance(result.exception, ZeroDivisionError)


def test_ui_says_when_there_is_nothing_to_show(tmp_path: Path) -> None:
    result = run("ui", "--home", tmp_path)
    assert result.exit_code == 2
    assert f"{tmp_path}/mlflow.db: no runs yet" in result.stderr


def test_ui_of_a_remote_store_names_the_server(conf: Path) -> None:
    result = run("ui", conf, "--set", "tracking.uri=https://ann:pw@host")
    assert result.stdout == "The runs are on a server: https://***@host\n"


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_ctrl_c_of_the_real_program(tmp_path: Path, conf: Path) -> None:
    # given a stage that waits, in a real process
    ready = tmp_path / "ready"
    code = f"""
import signal, sys, time, types, pathlib
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored by what a shell starts in the background
module = types.ModuleType("pipelines.training.start")
module.train = lambda config: (pathlib.Path({str(ready)!r}).touch(), time.sleep(60))
sys.modules["pipelines.training.start"] = module
sys.argv = ["mind", "train", {str(conf)!r}]
from jobs.cli import main
main()
"""
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    while not ready.exists():
        assert process.poll() is None
        time.sleep(0.02)
    # when it is interrupted
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=20)
    # then it says so and ends as shells expect
    assert (process.returncode, stderr) == (130, "mind: interrupted\n")


def test_serve_takes_a_port_and_a_model(monkeypatch: pytest.MonkeyPatch, conf: Path) -> None:
    stage = install(monkeypatch, "serve", names=("serve_model",))
    done = run("serve", conf, "--port", 9000, "--model", "x", "--set", "serve.replicas=2")
    assert done.exit_code == 0, done.output
    (((config,), options),) = stage.calls
    assert (config.serve.port, config.serve.replicas, options) == (9000, 2, {"model": "x"})


def test_serve_without_its_packages_says_what_to_install(monkeypatch: pytest.MonkeyPatch, conf: Path) -> None:
    monkeypatch.setitem(sys.modules, "ray.serve", None)
    done = run("serve", conf)
    assert done.exit_code == 2
    assert done.stderr == (
        "mind: error: serve: needs packages that are not installed: pip install 'mind-retrieval[serve]'\n"
    )


def test_export_of_towers_makes_nothing_else(monkeypatch: pytest.MonkeyPatch, conf: Path) -> None:
    stage = install(monkeypatch, "towers", names=("export_towers",))
    assert run("export", conf, "--towers", "--model", "x").exit_code == 0
    assert stage.calls[0][1] == {"model": "x"}


ENDS = """
import atexit, sys
import jobs.cli as cli

def app(prog_name):
    atexit.register(print, "last")
    print("first")
    {ending}

cli.app = app
cli.main()
"""


@pytest.mark.parametrize(
    ("ending", "code", "error"),
    [
        ("sys.exit(0)", 0, ""),
        ("sys.exit()", 0, ""),
        ("sys.exit(2)", 2, ""),
        ("sys.exit('a reason')", 1, "a reason\n"),
        ("raise ValueError('unforeseen')", 1, "ValueError: unforeseen\n"),
    ],
)
def test_the_program_ends_at_once_with_all_that_was_said(ending: str, code: int, error: str) -> None:
    done = subprocess.run([sys.executable, "-c", ENDS.format(ending=ending)], capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("first\nlast\n", code)
    assert done.stderr.endswith(error)
    assert bool(done.stderr) == bool(error)


def test_output_that_cannot_be_written_is_an_error_and_a_reader_that_has_gone_is_not_told_of(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    program = [sys.executable, "-c", ENDS.format(ending="sys.exit(0)")]
    with open("/dev/full", "w") as full:
        done = subprocess.run(program, stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (
        120,
        "mind: error: the output cannot be written (No space left on device)\n",
    )
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as gone:
        assert gone.stdout is not None
        gone.stdout.close()
        assert gone.stderr is not None
        assert gone.stderr.read() == ""
    assert gone.returncode == 120


@pytest.mark.parametrize(("words", "cpus"), [([], 9), (["--cpus", "4"], 4)])
def test_up_has_room_for_what_the_configuration_trains_with(
    monkeypatch: pytest.MonkeyPatch, conf: Path, words: list[str], cpus: int
) -> None:
    from pipelines.cluster import keeper
    from pipelines.cluster.standing import Standing

    asked: list[int | None] = []

    def up(home: Path, cpus: int | None) -> tuple[Standing, bool]:
        asked.append(cpus)
        return Standing("here", "127.0.0.1:1", 1, 0.0, 9, None, "2.60.0", "", None, ""), True

    monkeypatch.setattr(keeper, "up", up)
    monkeypatch.setattr("pipelines.cluster.address.cores", lambda: 2)
    conf.write_text(conf.read_text() + "train: {workers: 8}\n")
    done = CliRunner().invoke(app, ["up", str(conf), *words])
    assert done.exit_code == 0, done.output
    assert asked == [cpus]
