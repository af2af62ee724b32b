"""The pages of the Python API: one a public module, which mkdocstrings fills from its docstrings."""

from __future__ import annotations

import ast
from pathlib import Path

from docs.hooks.links import ROOT

PACKAGES = ("mind", "mind_core")  # what a program may import; those that are there


def modules(root: Path = ROOT) -> dict[str, str]:
    """List the modules with anything public, each with the first line of its docstring."""
    found = {}
    for package in PACKAGES:
        for file in sorted((root / package).rglob("*.py")):
            tree = ast.parse(file.read_text())
            text = ast.get_docstring(tree)
            if text and not any(
                part.startswith("_") and part != "__init__.py" for part in file.relative_to(root).parts
            ):
                name = ".".join(file.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
                found[name] = text.splitlines()[0]
    return found


def api_pages() -> dict[str, str]:
    """Write the pages, by their places in the site."""
    lines = [
        "# Python API",
        "",
        "`mind` is what a program or a notebook imports: a frame in, a trained model out ([how to](../../python.md)). "
        "`mind_core` is the model in pure PyTorch: no Ray, no MLflow, no files. Lift it out and use it. The axes are "
        "named alike everywhere: B users, L behaviours, K interests, d dimension, N negatives, V items.",
        "",
        "| module | what it is |",
        "|---|---|",
    ]
    pages = {}
    for name, text in modules().items():
        lines.append(f"| [{name}]({name}.md) | {text.replace('|', chr(92) + '|')} |")
        pages[f"reference/api/{name}.md"] = f"# {name}\n\n::: {name}\n"
    return {"reference/api/index.md": "\n".join([*lines, ""]), **pages}
