"""The notebooks of examples/ and the code of docs/python.md: they are whole, and run as they stand."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import mind
from tests.docs.written import ROOT

NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))
PAGE = (ROOT / "docs/python.md").read_text()
MODEL_CALLS = ("recommend", "evaluate", "interests", "similar", "fit", "fitted", "from_frame", "from_config")


def code_of(notebook: Path) -> list[str]:
    cells = json.loads(notebook.read_text())["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_can_be_read_and_calls_what_is_there(notebook: Path) -> None:
    tree = ast.parse("\n".join(code_of(notebook)))
    attributes = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    named = {each.attr for each in attributes if isinstance(each.value, ast.Name) and each.value.id == "mind"}
    assert {"Dataset", "sample_log"} <= named
    assert all(hasattr(mind, name) for name in named)
    calls = {node.func.attr for node in ast.walk(tree) if isinstance(node, ast.Call)
             and isinstance(node.func, ast.Attribute)}  # fmt: skip
    assert {"from_frame", "fit", "evaluate", "recommend", "interests", "similar", "plot"} <= calls
    assert all(hasattr(mind.Dataset, name) or hasattr(mind.FittedModel, name) for name in set(MODEL_CALLS))


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_without_outputs_and_names_no_machine(notebook: Path) -> None:
    cells = json.loads(notebook.read_text())["cells"]
    assert not [cell for cell in cells if cell.get("outputs") or cell.get("execution_count")]
    assert not re.search(r"/home/|/root/|/tmp/|/work/", notebook.read_text())
    assert cells[0]["cell_type"] == "markdown"


def test_the_page_calls_what_is_there() -> None:
    (block,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    ast.parse(block)
    for name in re.findall(r"`(?:model|dataset)\.(\w+)", PAGE):
        assert hasattr(mind.FittedModel, name) or hasattr(mind.Dataset, name), name
    for name in re.findall(r"`mind\.(\w+)", PAGE):
        assert hasattr(mind, name), name


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", [*(path.stem for path in NOTEBOOKS), "python.md"])
def test_every_cell_runs(name: str, tmp_path: Path) -> None:
    cells = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    if name != "python.md":
        cells = code_of(ROOT / "examples" / f"{name}.ipynb")
    code = "\n\n".join(cells).replace("EVENTS = 20_000", "EVENTS = 8_000")
    script = tmp_path / "cells.py"
    script.write_text(f"import sys\nsys.path.insert(0, {str(ROOT)!r})\n{code}\n")
    done = subprocess.run([sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "mind_home" / "models").is_dir()
