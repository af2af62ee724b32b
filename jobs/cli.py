"""The command line: ``mind STAGE CONF``. One command a stage, each a plain function of :mod:`pipelines` underneath.

Everything heavy is imported inside a command, so that ``mind --help`` answers at once.
"""

from __future__ import annotations

import atexit
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperCommand

from jobs.cli_cluster import add_cluster_commands
from jobs.cli_doctor import doctor
from jobs.cli_plan import plan
from jobs.cli_up import down, up
from jobs.commands import STOPPED, Commands
from jobs.list_options import (
    Allow,
    CapOption,
    Category,
    Deny,
    Lambda,
    PolicyOption,
    Quota,
    Stock,
    Where,
    with_lists,
)
from jobs.options import (
    Conf,
    ExportLatest,
    Home,
    Latest,
    Model,
    Preset,
    Sets,
    Top,
    home_folder_of,
    list_file,
    loaded_config,
    print_next,
    require_campaign,
    require_extra,
    warm_config,
    with_top,
)
from jobs.result_command import ResultApp, asked_for_json
from pipelines.cluster.hand_over import handed_over
from pipelines.errors import UserError
from pipelines.stopping import end_at_once

app = ResultApp(
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # a plain traceback can be pasted into an issue
    help="Multi-interest retrieval (MIND): an event log in, K vectors per user and top-N lists out.",
)


@app.command()
def preprocess(
    conf: Conf,
    sets: Sets = None,
    preset: Preset = None,
    home: Home = None,
    append: Annotated[
        str | None,
        typer.Option(metavar="LOG", help="Take this log (a new day's: file, folder or glob) onto the dataset of CONF."),
    ] = None,
) -> Any:
    """Turn the event log into a dataset; if it is killed, the same command goes on."""
    config = warm_config(conf, sets, preset, home)
    from pipelines.preprocess.summary import print_summary, record_summary

    if append is None:
        from pipelines.preprocess.preprocess import preprocess

        dataset = preprocess(config)
    else:
        from pipelines.preprocess.append import append as append_log

        dataset = append_log(config, append)
    record_summary(config, dataset)
    print_summary(dataset)
    print_next("train", conf, sets, preset, home)
    return dataset


@app.command()
def init(
    log: Annotated[str, typer.Argument(metavar="LOG", help="The event log: a file, a folder, a glob or a URI.")],
    items: Annotated[str | None, typer.Option("--items", metavar="T", help="A table of the items.")] = None,
    profile: Annotated[str | None, typer.Option("--profile", metavar="T", help="A table of the users.")] = None,
    user: Annotated[str | None, typer.Option(metavar="COLUMN", help="Of the log, if the guess is wrong.")] = None,
    item: Annotated[str | None, typer.Option(metavar="COLUMN", help="Likewise.")] = None,
    time: Annotated[str | None, typer.Option(metavar="COLUMN", help="Likewise.")] = None,
    time_format: Annotated[
        str | None,
        typer.Option("--time-format", metavar="FORM", help="Of its times, if the guess is wrong: '%d/%m/%Y %H:%M'."),
    ] = None,
    name: Annotated[str, typer.Option("--name", help="Of the configuration; it is written to NAME.yaml.")] = "mine",
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Write to this file instead.")] = None,
) -> Any:
    """Look at a log and write a configuration for it, in which every guess says that it is one."""
    from pipelines.config.names import required_name
    from pipelines.log.proposal.first_look import look_at
    from pipelines.log.proposal.write import propose

    required_name(name, "--name")
    text = propose(
        name,
        look_at(log, events=True, time_format=time_format),
        look_at(items) if items else None,
        look_at(profile) if profile else None,
        {role: column for role, column in (("user", user), ("item", item), ("time", time)) if column is not None},
    )
    return _write_conf(text, out or Path(f"{name}.yaml"))


@app.command(name="import")
def import_set(
    kind: Annotated[
        Literal["movielens", "amazon-reviews", "recbole", "yambda"],
        typer.Argument(metavar="KIND", help="movielens, amazon-reviews, recbole or yambda."),
    ],
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="Where it was unpacked: a folder or a URI.")],
    name: Annotated[str | None, typer.Option("--name", help="Of the configuration; without it KIND.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Write to this file, not NAME.yaml.")
    ] = None,
) -> Any:
    """Write a configuration for a public data set, from its files as they were downloaded."""
    from pipelines.config.names import required_name
    from pipelines.log.public_sets.write import configuration

    name = required_name(kind if name is None else name, "--name")
    return _write_conf(configuration(kind, folder, name), out or Path(f"{name}.yaml"))


def _write_conf(text: str, path: Path) -> tuple[Path, str]:
    """Write a configuration that was made, and show it, if it can be read; one that is there stays."""
    from pipelines.config.load import load_config

    if not path.exists():
        load_config(path, text=text)
    try:
        with path.open("x", encoding="utf-8") as file:
            try:
                file.write(text)
                file.flush()
            except OSError:  # a full disk
                path.unlink()
                raise
    except FileExistsError:
        raise UserError(f"{path}: is there already; give --out FILE or --name NAME") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from None
    typer.echo(text, nl=False)
    print_next("preprocess", path, None, None, None)
    return path, text


@app.command()
def train(
    conf: Conf,
    profile: Annotated[bool, typer.Option("--profile", help="Show where a step's time goes.")] = False,
    sets: Sets = None,
    preset: Preset = None,
    home: Home = None,
) -> Any:
    """Train on the dataset; goes on from the last checkpoint if it was stopped."""
    config = warm_config(conf, [*(sets or []), *(["train.profile=true"] if profile else [])], preset, home)
    from pipelines.training.start import train

    outcome = train(config)
    print_next("evaluate", conf, sets, preset, home)
    return outcome


@app.command()
def evaluate(
    conf: Conf,
    model: Model = None,
    against: Annotated[
        list[str] | None,
        typer.Option("--against", metavar="M", help="Compare with this one too: a preset, folder or URI. Repeatable."),
    ] = None,
    split: Annotated[Literal["test", "validation"], typer.Option("--split", help="Which events to find.")] = "test",
    sets: Sets = None,
    preset: Preset = None,
    home: Home = None,
) -> Any:
    """Rank the whole catalogue for every user and report the metrics."""
    config = warm_config(conf, sets, preset, home)
    from pipelines.evaluation.evaluate import evaluate

    found = evaluate(config, model=model, split=split, against=against or ())
    print_next("recommend", conf, sets, preset, home, *([] if model is None else ["--model", model]), "--all")
    return found


@app.command()
def report(
    conf: Conf,
    model: Model = None,
    split: Annotated[Literal["test", "validation"], typer.Option("--split", help="As evaluated.")] = "test",
    sets: Sets = None,
    preset: Preset = None,
    home: Home = None,
) -> Any:
    """Draw what a model finds, what its interests do and what its lists are made of: one page, and pictures."""
    config = warm_config(conf, sets, preset, home)
    from pipelines.evaluation.report_page.command import report

    return report(config, model=model, split=split)


@app.command()
def recommend(
    conf: Conf,
    user: Annotated[list[str] | None, typer.Option("--user", "-u", metavar="ID", help="May be repeated.")] = None,
    everyone: Annotated[bool, typer.Option("--all", help="Every user of the dataset.")] = False,
    history: Annotated[
        list[str] | None,
        typer.Option("--history", metavar="ID,ID,...", help="Somebody who is not in the log: item ids, oldest first."),
    ] = None,
    top: Top = None,
    again: Annotated[
        int | None, typer.Option("--again", metavar="N", help="So many items of the user's history, beside --new M.")
    ] = None,
    new: Annotated[
        int | None, typer.Option("--new", metavar="M", help="So many items that the user does not know.")
    ] = None,
    out: Annotated[
        str | None, typer.Option("--out", help="Write to this .parquet, .csv or .jsonl, or s3://...")
    ] = None,
    latest: Latest = False,
    why: Annotated[
        bool, typer.Option("--why", help="Say of each item which interest found it, and what that comes from.")
    ] = False,
    where: Where = None,
    allow: Allow = None,
    deny: Deny = None,
    stock: Stock = None,
    cap: CapOption = None,
    policy: PolicyOption = None,
    diversity: Lambda = None,
    category: Category = None,
    quota: Quota = None,
    model: Model = None,
    sets: Sets = None,
    preset: Preset = None,
    home: Home = None,
) -> Any:
    """List the top items of users, and which interest found each."""
    if sum((bool(user), everyone, history is not None)) != 1:
        raise UserError("recommend: give either --user ID (may be repeated), --history ID,ID,... or --all")
    wanted = list_file(out)
    sets = with_lists(sets, where=where, allow=allow, deny=deny, stock=stock, cap=cap, policy=policy,
                      diversity=diversity, category=category, quota=quota)  # fmt: skip
    config = warm_config(conf, with_top(sets, top, again, new), preset, home)
    from jobs.results import lists_file, lists_in

    with lists_file(wanted, asked_for_json() and not everyone) as file:
        if history is not None:
            from pipelines.retrieval.strangers import recommend_history

            ids = [part for text in history for each in text.split(",") if (part := each.strip())]
            return lists_in(recommend_history(config, ids, out=file, model=model, why=why), wanted)
        from pipelines.retrieval.recommend import recommend

        return lists_in(recommend(config, users=user or None, out=file, model=model, latest=latest, why=why), wanted)


@app.command()
def similar(
    conf: Conf,
    item: Annotated[list[str], typer.Option("--item", "-i", metavar="ID", help="May be repeated.")],
    top: Annotated[int, typer.Option("--top", "-n", metavar="N", min=1, help="Items beside each.")] = 20,
    out: Annotated[
        str | None, typer.Option("--out", help="Write to this .parquet, .csv or .jsonl, or s3://...")
    ] = None,
    where: Where = None,
    allow: Allow = None,
    deny: Deny = None,
    stock: Stock = None,
    model: Model = None,
    sets: Sets = None,
    preset: Preset = None,
    home: Home = None,
) -> Any:
    """List the items that are most like an item: the cosine of their vectors."""
    wanted = list_file(out)
    config = warm_config(conf, with_lists(sets, where=where, allow=allow, deny=deny, stock=stock), preset, home)
    from jobs.results import lists_file, lists_in
    from pipelines.retrieval.similar import similar

    with lists_file(wanted, asked_for_json()) as file:
        return lists_in(similar(config, item, top, out=file, model=model), wanted)


@app.command()
def export(
    conf: Conf,
    top: Top = None,
    index: Annotated[
        Literal["flat", "hnsw", "ivf_pq"] | None,
        typer.Option("--index", help="Build this FAISS index of the items, and measure what it finds."),
    ] = None,
    items: Annotated[
        str | None, typer.Option("--items", metavar="NEW", help="Rows of the item table that came after the training.")
    ] = None,
    latest: ExportLatest = True,
    towers: Annotated[
        bool, typer.Option("--towers", help="Instead: the user tower as ONNX and torch.export, and the items' vectors.")
    ] = False,
    model: Model = None,
    sets: Sets = None,
    preset: Preset = None,
    home: Home = None,
) -> Any:
    """Write item vectors, every user's interest vectors and top-N lists for a serving system."""
    config = warm_config(conf, with_top(sets, top), preset, home)
    if towers:
        from pipelines.retrieval.towers import export_towers

        return export_towers(config, model=model)
    from pipelines.retrieval.export import export

    return export(config, model=model, latest=latest, items=items, index=index)


@app.command(cls=TyperCommand)
def serve(
    conf: Conf,
    model: Model = None,
    port: Annotated[int | None, typer.Option("--port", help="Of 127.0.0.1 (serve.host); 8000 by default.")] = None,
    sets: Sets = None,
    preset: Preset = None,
    home: Home = None,
) -> None:
    """Answer requests over HTTP, with the registry's champion and whichever follows it, until Ctrl-C."""
    require_extra("ray.serve", "serve")
    config = loaded_config(conf, [*(sets or []), *([] if port is None else [f"serve.port={port}"])], preset, home)
    from pipelines.endpoint.serve import serve_model

    serve_model(config, model=model)


@app.command()
def pipeline(
    conf: Conf,
    latest: ExportLatest = True,
    sets: Sets = None,
    preset: Preset = None,
    home: Home = None,
) -> Any:
    """Preprocess, train, evaluate and export; what is there already from this log and these settings is left out."""
    config = warm_config(conf, sets, preset, home)
    from pipelines.pipeline import pipeline

    steps = pipeline(config, latest=latest)
    print_next("recommend", conf, sets, preset, home, "--all")
    return steps


@app.command()
def generate(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write.")],
    events: Annotated[int, typer.Option("--events", min=1, help="About as many.")] = 100_000,
    users: Annotated[int, typer.Option("--users", min=1, help="Each has at least one event.")] = 2_000,
    items: Annotated[int, typer.Option("--items", min=1, help="Dealt out to 20 clusters.")] = 1_000,
    seed: Annotated[int, typer.Option("--seed", help="The same seed gives the same log.")] = 0,
) -> Any:
    """Write a synthetic event log with planted interests, to try things on."""
    from pipelines.preprocess.synthetic import generate

    try:
        log = generate(out, events=events, users=users, items=items, seed=seed)
    except ValueError as error:
        raise UserError(f"generate: {error}") from None
    typer.echo(f"events: {log.events}\nitems: {log.items}\nprofile: {log.profile}")
    return log


@app.command(name="config")
def show_config(
    part: Annotated[
        str | None, typer.Argument(metavar="[PART]", help="A section or a setting, e.g. data.events or train.epochs.")
    ] = None,
) -> Any:
    """Print every setting: what it accepts, its default, what it does, and what presets make of it."""
    from pipelines.config.show_manual import show_manual

    return show_manual(part)


@app.command(cls=TyperCommand)
def ui(
    conf: Annotated[Path | None, typer.Argument(metavar="[CONF]", help="Whose store to show.")] = None,
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="On 127.0.0.1.")] = 5000,
    sets: Sets = None,
    home: Home = None,
) -> None:
    """Open the MLflow dashboard of the runs."""
    from pipelines.tracking.dashboard import serve
    from pipelines.tracking.store import store_of, store_uri

    if conf is not None:
        config = loaded_config(conf, sets, None, home)
        serve(store_of(config), config.home_path, port)
    else:
        folder = home_folder_of(home)
        serve(store_uri(None, folder), folder, port)


@app.command()
def tune(
    conf: Annotated[
        Path | None, typer.Argument(metavar="[CONF]", help="YAML file of a tuning campaign, e.g. conf/beauty-tune.yaml")
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(metavar="quick", help="Search CONF, a configuration, in 24 short trials of what matters most."),
    ] = None,
    resume: Annotated[
        str | None, typer.Option("--resume", metavar="NAME", help="Go on with a campaign as it was last started.")
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Train again what has failed before, once its cause is mended.")
    ] = False,
    sets: Sets = None,
    home: Home = None,
) -> Any:
    """Search settings, train and test the winner; the same command, or --resume, goes on after any interruption."""
    require_campaign(conf, resume, preset)
    from pipelines.tuning.load import load_campaign, stored_campaign

    if conf is not None:
        loaded = load_campaign(conf, sets or [], home, preset)
    else:
        assert resume is not None
        loaded = stored_campaign(resume, home_folder_of(home), sets or [])
    from pipelines.tuning.tune import tune

    return tune(loaded, retry_failed)


@app.command()
def promote(
    conf: Conf,
    name: Annotated[
        str | None, typer.Option("--name", help="Of the registered model. Without it: the name in CONF.")
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Promote without a comparison, e.g. over a champion of an older dataset.")
    ] = False,
    sets: Sets = None,
    preset: Preset = None,
    home: Home = None,
) -> Any:
    """Make the challenger the champion if it does better on the test set; exit code 0 whatever is decided."""
    config = warm_config(conf, sets, preset, home)
    from pipelines.evaluation.promote import promote

    return promote(config, name=name, replace=replace)


app.command()(plan)
app.command()(doctor)
app.command()(up)
app.command()(down)
add_cluster_commands(app)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"mind {version('mind-retrieval')}")
        raise typer.Exit


@app.callback()
def options(
    show_version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version.")
    ] = False,
) -> None:
    """Take the options of ``mind`` itself; the help text is that of `app`."""


def main() -> None:
    """Run the ``mind`` script. A command that was stopped has let everything go; threads of Ray's may then abort."""
    codes = [1]  # of an exception that nobody catches
    if not handed_over():  # a fork ends at once by itself
        atexit.register(lambda: end_at_once(codes[-1]))  # the first to be registered is the last to be called
    try:
        app(prog_name="mind")
    except SystemExit as ended:
        codes.append(ended.code if isinstance(ended.code, int) else int(ended.code is not None))
        if ended.code in STOPPED:
            end_at_once(codes[-1])
        raise


if __name__ == "__main__":
    main()
