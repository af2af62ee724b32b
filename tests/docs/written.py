"""Read the pages as a reader types them: what looks like a command, a setting, a path or a target, with its place."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import typer
import yaml
from pydantic import ValidationError

from jobs.cli import app
from pipelines.config.load import available_presets, load_config
from pipelines.config.manual import parts
from pipelines.config.schema import Config
from pipelines.errors import UserError
from pipelines.tuning.config import Campaign
from pipelines.tuning.load import ready_campaigns

ROOT = Path(__file__).parents[2]
NO_SHELL = ("python", "yaml", "json", "diff")
PLACEHOLDER = re.compile(r"[A-Z][A-Z_]*|\.\.\.|…|\$.*")
SPAN = re.compile(r"(?<!`)`([^`]+)`(?!`)")
ENDS = ("&&", "||", ";", "|", "&", ">", "<", ">>", "(", ")")
OTHERS = {"--dry-run", "--plain", "--strict", "--drain"}  # options of other programs that stand alone in a span
SECTION = re.compile(r"(?:data|model|loss|optim|train|evaluate|tracking|ray)\.[a-z_.]+[a-z_](?=$|[=: ])")
SUFFIX = re.compile(r"\.(py|json|html|parquet|yaml|md|txt|db)$")
PATH = re.compile(r"(?:mind_core|pipelines|jobs|tests|benchmarks|conf|docs)/[\w./*-]*")


@dataclass(frozen=True)
class Piece:
    """Some text of a page: a line or a whole block of code, or a span between backticks."""

    place: str  # README.md:12
    text: str
    kind: str  # span, shell, yaml, ...
    fails: bool = False  # the line after it is an error: a mistake that is shown on purpose


def pages() -> list[Path]:
    """List the pages that are to be true today; the changelog tells what was."""
    roots = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")]
    return [*(page for page in roots if page.exists()), *sorted((ROOT / "docs").rglob("*.md"))]


def pieces(page: Path) -> Iterator[Piece]:
    """Cut a page into code and spans."""
    name = page.relative_to(ROOT).as_posix() if page.is_relative_to(ROOT) else page.name
    prose: list[str] = []
    block: list[tuple[int, str]] = []
    language: str | None = None
    for number, line in enumerate([*page.read_text().splitlines(), ""], 1):
        fence = re.match(r"\s*(?:```|~~~)\s*(\w*)", line)
        indented = language is None and line.startswith("    ") and not re.match(r"\s+([-*|]|\d+\.)\s", line)
        if fence and language is None:
            language, block = fence[1] or "text", []
        elif fence:
            yield from _code(name, language or "", block)
            language, block = None, []
        elif language is not None:
            block.append((number, line))
        elif indented:
            yield from _code(name, "text", [(number, line.strip())])
        prose.append("" if fence or language is not None or indented else line)
    text = "\n".join(prose)
    for found in SPAN.finditer(text):
        if "\n\n" not in found[1]:
            yield Piece(f"{name}:{text.count(chr(10), 0, found.start()) + 1}", " ".join(found[1].split()), "span")


def _code(name: str, language: str, block: list[tuple[int, str]]) -> Iterator[Piece]:
    if language in NO_SHELL:
        if block:
            yield Piece(f"{name}:{block[0][0]}", "\n".join(line for _, line in block), language)
        return
    joined: list[tuple[int, str]] = []
    for number, line in block:
        if joined and joined[-1][1].endswith("\\"):
            joined[-1] = joined[-1][0], joined[-1][1][:-1] + line.strip()
        else:
            joined.append((number, line.strip()))
    for (number, line), (_, after) in zip(joined, [*joined[1:], (0, "")], strict=True):
        yield Piece(f"{name}:{number}", line.removeprefix("$ "), "shell", "mind: error" in after)


def commands(piece: Piece) -> Iterator[list[str]]:
    """Find the words of each ``mind ...`` in a line or span."""
    if piece.kind not in ("shell", "span") or "mind" not in piece.text:
        return
    lexer = shlex.shlex(piece.text, posix=True, punctuation_chars="&|;()<>")
    lexer.whitespace_split, lexer.commenters = True, "#" if piece.kind == "shell" else ""
    try:
        words = list(lexer)
    except ValueError:
        return  # an apostrophe: a sentence
    command: list[str] = []
    for word in [*words, ";"]:
        if word in ENDS:
            yield from _mind(command, piece.kind)
            command = []
        else:
            command.append(word)


def _mind(words: list[str], kind: str) -> Iterator[list[str]]:
    """Return what comes after ``mind``, if that is the command; variables may stand before it."""
    place = 0
    while (
        kind == "shell"
        and place < len(words)
        and (words[place] == "env" or "=" in words[place] or words[place] == "-u")
    ):
        place += 2 if words[place] == "-u" else 1
    if place < len(words) and (words[place] == "mind" or words[place].endswith("/bin/mind")):
        yield words[place + 1 :]


def command_faults(words: list[str], fails: bool = False, named: bool = False) -> Iterator[str]:
    """Say what the Typer app would refuse in the words after ``mind``; placeholders such as CONF stand for anything.

    With `named` an option may stand at the end without its value: it is spoken of.
    """
    command: Any = typer.main.get_command(app)
    options = _options(command)
    name, sets, preset, values, stage_next = "mind", [], None, [], False
    rest = iter(words)
    for word in rest:
        if re.match(r"-\D", word):
            option, equals, value = word.partition("=")
            if option not in options:
                yield f"{name} has no option {option}"
                return
            if options[option] is None or options[option].is_flag:
                continue
            value = value if equals else next(rest, "")
            if not value and named:
                continue
            if not value:
                yield f"{name} {option} lacks its value"
                continue
            if PLACEHOLDER.fullmatch(value):
                continue
            if option in ("--set", "-s"):
                sets.append(value)
            elif option == "--preset":
                preset = value
            yield from (f"{name} {option} {fault}" for fault in _value_faults(options[option], value))
        elif hasattr(command, "commands") or stage_next:
            if PLACEHOLDER.fullmatch(word):
                return
            found = typer.main.get_command(app).commands if stage_next else command.commands
            if word not in found:
                yield f"{name} has no command {word}; there are {', '.join(found)}"
                return
            name = f"{name} {word}"
            options |= _options(found[word])
            command = found[word]
            stage_next = name == "mind submit"
        elif not re.fullmatch(r"\.\.\.|…", word):
            values.append(word)
    allowed = sum(each.param_type_name == "argument" for each in getattr(command, "params", []))
    if len(values) > allowed and not hasattr(command, "commands"):
        yield f"{name} takes {allowed} words, here are {', '.join(values)}"
    is_campaign = command.name == "tune" if hasattr(command, "name") else False
    known = ready_campaigns() if is_campaign else available_presets()
    if preset is not None and preset not in known:
        yield f"{name} --preset {preset}: there are {', '.join(known)}"
    elif not (fails and sets):
        yield from set_faults(sets, is_campaign, preset)


def set_faults(sets: list[str], is_campaign: bool = False, preset: str | None = None) -> Iterator[str]:
    """Say which ``key=value`` names no setting, or has a value that the setting does not take."""
    for text in sets:
        key, _, _ = text.partition("=")
        if not PLACEHOLDER.fullmatch(key) and not is_setting(key, is_campaign):
            yield f"--set {text}: no such setting"
            return
    known = [text for text in sets if not any(PLACEHOLDER.fullmatch(part) for part in text.split("=", 1))]
    if known and not is_campaign:
        try:
            load_config(Path(os.devnull), ["name=written", "data.events.path=none", *known], preset)
        except UserError as error:
            yield str(error)


def is_setting(key: str, is_campaign: bool = False) -> bool:
    """Say whether a dotted name is a setting or a section, of a configuration or of a campaign."""
    if is_campaign and key.startswith(("settings.", "space.")):
        return is_setting(key.split(".", 1)[1])
    return any(pattern.fullmatch(key) for pattern in (CAMPAIGN if is_campaign else CONFIG))


def _patterns(root: type) -> list[re.Pattern[str]]:
    found = []
    for part in parts(root):
        for name, accepts in [(part.name, ""), *((each.name, each.accepts) for each in part.settings)]:
            pattern = re.escape(name).replace("NAME", r"[^.]+").replace(r"\[\]", r"(\.\d+)?")
            found.append(re.compile(pattern + (r"(\.[^.]+)?" if accepts.startswith("`name: value`") else "")))
    return found


CONFIG, CAMPAIGN = _patterns(Config), _patterns(Campaign)


def span_faults(text: str) -> Iterator[str]:
    """Say what a span names that is not there: an option, a setting, a path, a make target."""
    if text.startswith("-"):
        option = re.split(r"[ =]", text)[0]
        if re.match(r"--\w|-s ", option + " ") and option not in OTHERS | set(EVERY_OPTION):
            yield f"no command of mind has an option {option}"
        sets = re.findall(r"(?:--set|-s) (\S+=\S+)", text)
        if sets and all(not is_setting(each.split("=")[0]) for each in sets):
            yield from set_faults(sets, is_campaign=True)
        else:
            yield from set_faults(sets)
    elif (found := SECTION.match(text)) and not SUFFIX.search(found[0]):
        is_ray_api = found[0].startswith(("ray.", "data.")) and not re.match(r"\S+[=:]", text)
        if not is_setting(found[0]) and not is_ray_api:
            yield f"no setting {found[0]}"
    elif PATH.fullmatch(text) and not list(ROOT.glob(text.rstrip("/"))):
        yield f"no file {text}"
    elif (target := re.match(r"make ([a-z-]+)$", text)) and target[1] not in make_targets():
        yield f"no target {text}"


def yaml_faults(text: str) -> Iterator[str]:
    """Say what is wrong with a block of YAML, if it is a configuration or a campaign, whole or in part."""
    values = yaml.safe_load(text)
    if not isinstance(values, dict) or not set(values) <= {*Config.model_fields, *Campaign.model_fields}:
        return
    try:
        if "campaign" in values:
            campaign = Campaign.model_validate(values)
            yield from (f"no setting {key}" for key in campaign.space if not is_setting(key))
        elif {"name", "data"} <= set(values):
            Config.model_validate(values)
        else:
            yield from (f"no setting {key}" for key in _leaves(values) if not is_setting(key))
    except ValidationError as error:
        yield " ".join(str(error).split())


def _leaves(values: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def make_targets() -> set[str]:
    """List the targets of the Makefile."""
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def faults(piece: Piece) -> Iterator[str]:
    """Say all that is wrong with a piece."""
    if piece.kind == "yaml":
        yield from yaml_faults(piece.text)
    if piece.kind == "span":
        yield from span_faults(piece.text)
    if (
        piece.kind == "shell"
        and (target := re.match(r"make ([a-z-]+)", piece.text))
        and target[1] not in make_targets()
    ):
        yield f"no target make {target[1]}"
    for words in commands(piece):
        yield from command_faults(words, piece.fails, piece.kind == "span")


def _options(command: Any) -> dict[str, Any]:
    options = [each for each in getattr(command, "params", []) if each.param_type_name == "option"]
    return {"--help": None} | {name: each for each in options for name in (*each.opts, *each.secondary_opts)}


def _every_option(group: Any) -> Iterator[str]:
    yield from _options(group)
    for command in getattr(group, "commands", {}).values():
        yield from _every_option(command)


EVERY_OPTION = list(_every_option(typer.main.get_command(app)))


def _value_faults(option: Any, value: str) -> Iterator[str]:
    annotation = option.type_descriptor.annotation
    if get_origin(annotation) is Literal and value not in get_args(annotation):
        yield f"{value}: must be one of {', '.join(get_args(annotation))}"
    if annotation in (int, float):
        try:
            annotation(value)
        except ValueError:
            yield f"{value}: must be a number"
