"""A plan on the terminal."""

from __future__ import annotations

from rich.table import Table

from pipelines.config.numbers import show_bytes, show_count, show_seconds
from pipelines.plan import memory, network, preprocessing, ranking, training
from pipelines.plan.bottlenecks import bottlenecks, part_of_node_memory
from pipelines.plan.distinct_items import distinct_items
from pipelines.plan.machine import Machine, described
from pipelines.plan.memory import Parts
from pipelines.plan.plan import DRIVERS, EPOCH, Plan
from pipelines.progress import output
from pipelines.words import counted

SMALL = 0.01  # parts below a hundredth of their sum are left out
SECONDS = ("start", "compute", "network", "disk", "driver", "reports", "validation")


def show_plan(plan: Plan) -> None:
    """Print every table, and where the next bottleneck lies."""
    for table in (_nodes(plan), _memory(plan), _disk(plan), _network(plan), _time(plan)):
        output.print(table)
    for number, found in enumerate(bottlenecks(plan), 1):
        title = "Next bottleneck" if number == 1 else f"Then ({number})"
        output.print(f"[bold]{title}: {found.kind}[/bold]. {found.where}.\n  Change: {found.change}.")


def show_machine(machine: Machine) -> None:
    """Print every figure that a plan is made with."""
    table = _table("Machine (-m FIGURE=VALUE changes one)", "figure", "value", "")
    for name, value, what in described(machine):
        table.add_row(name, f"{value:.3g}", what)
    output.print(table)


def _nodes(plan: Plan) -> Table:
    workload, machine, model = plan.workload, plan.machine, plan.workload.config.model
    title = (
        f"{show_count(workload.events)} events, {show_count(workload.items)} items, {show_count(workload.users)} users"
        f"; d = {model.dim}, K = {model.interests}, L = {model.max_history}"
    )
    table = _table(title, "nodes", "number", "")
    of = f"{machine.cores:g} cores, {show_bytes(machine.memory)}, {machine.network / 1e9:g} Gbit/s"
    table.add_row("workers", f"{plan.nodes:,}", of)
    workers = f"{counted(workload.workers, 'worker')} of {counted(plan.threads, 'thread')}"
    table.add_row("", "", f"{workers}, up to {plan.workers_a_node} on a node")
    drivers = max(plan.process(name).bytes for name in DRIVERS)
    table.add_row("head, for the drivers", "1", f"at least {show_bytes(drivers)}")
    return table


def _memory(plan: Plan) -> Table:
    table = _table("Memory at the peak", "process", "bytes", "")
    for process in plan.processes:
        verdict = (
            "" if part_of_node_memory(plan, process) <= 1 else f"more than a node's {show_bytes(plan.machine.memory)}"
        )
        table.add_row(f"[bold]{process.name}[/bold], {process.a_node:,} a node", show_bytes(process.bytes), verdict)
        _add(table, process.parts)
        if process.shared:
            table.add_row("  lookup of items, once a node", show_bytes(process.shared), "")
    together = memory.preprocess_node(plan.workload, plan.machine)
    table.add_row("[bold]preprocess on a single node[/bold], all its processes", show_bytes(together), "")
    return table


def _disk(plan: Plan) -> Table:
    workload = plan.workload
    table = _table("Disk", "what", "bytes", "")
    for name, size in preprocessing.disk(workload).items():
        table.add_row(name, show_bytes(size), "")
    table.add_row(
        "dataset: parts", f"{preprocessing.parts(workload):,}", f"of {memory.part_events(workload):,.0f} events"
    )
    table.add_row("a checkpoint", show_bytes(training.checkpoint_bytes(workload)), "two are kept")
    table.add_row("model: table, item vectors", show_bytes(memory.model_bytes(workload)), "and MLflow's copy")
    for name, size in ranking.exported(workload).items():
        table.add_row(name, show_bytes(size), "before compression")
    return table


def _network(plan: Plan) -> Table:
    workload = plan.workload
    table = _table("Network: a worker sends", "what", "bytes", "")
    sent = network.step_sent(workload)
    for name, size in sent.items():
        table.add_row(name, show_bytes(size), "")
    rows = show_count(distinct_items(workload, workload.rank_batch))
    table.add_row(
        "in a step", show_bytes(sum(sent.values())), f"{workload.rank_batch:,} samples, {rows} distinct items"
    )
    if workload.config.train.shard_items:
        table.add_row("at a validation", show_bytes(network.validation_received(workload)), "received: the whole table")
    return table


def _time(plan: Plan) -> Table:
    workload = plan.workload
    table = _table("Time", "", *(stage.name for stage in plan.stages))
    for kind in SECONDS:
        cells = [show_seconds(stage.seconds[kind]) if stage.seconds.get(kind) else "" for stage in plan.stages]
        if any(cells):
            table.add_row(kind, *cells)
    table.add_row("[bold]in all[/bold]", *(show_seconds(stage.total) for stage in plan.stages))
    rate, epochs = workload.samples / plan.stage(EPOCH).total, workload.config.train.epochs_in_all
    passes = f"{counted(epochs, 'epoch')} of {show_count(workload.samples)} samples"
    table.caption = f"{passes}, {counted(workload.steps, 'step')}; {rate:,.0f} samples/s"
    return table


def _add(table: Table, parts: Parts) -> None:
    for name, size in parts.items():
        if size > SMALL * sum(parts.values()):
            table.add_row(f"  {name}", show_bytes(size), "")


def _table(title: str, *columns: str) -> Table:
    """Make a table whose first column and those without a name hold text, the others numbers."""
    table = Table(title=title, title_justify="left", caption_justify="left")
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number and column else "left")
    return table
