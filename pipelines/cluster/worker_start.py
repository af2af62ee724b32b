"""What Ray's node runs in place of its own setup_worker.py: set the environment, and become the worker.

Ray's own script imports all of Ray to do that, in an interpreter of its own before the worker's: half a second of a
core for each worker. This one is run as a script and imports the standard library alone. Whatever it cannot do
(another language, a container, another Python) it leaves to Ray's.
"""

from __future__ import annotations

import json
import os
import sys

ORIGINAL = "MIND_SETUP_WORKER"  # environment: the path of Ray's own script
PLAIN = {"env_vars", "py_executable"}  # of a runtime environment: what is understood here


def command(arguments: list[str], environment: dict[str, str]) -> tuple[list[str], dict[str, str]]:
    """Find what to execute: the worker itself in its environment, or Ray's own script.

    Examples
    --------
    >>> context = '{"env_vars": {"A": "1"}, "py_executable": "%s"}' % sys.executable
    >>> asked = ["worker.py", "-x", "--language=PYTHON", "--serialized-runtime-env-context", context]
    >>> words, changed = command(asked, {})
    >>> words[1:], changed
    (['worker.py', '-x'], {'A': '1'})
    """
    rest, told = [], {"--serialized-runtime-env-context": "{}", "--language": ""}
    words = iter(arguments)
    for word in words:
        name, equals, value = word.partition("=")
        if name in told:
            told[name] = value if equals else next(words, "")
        else:
            rest.append(word)
    context = json.loads(told["--serialized-runtime-env-context"] or "{}")
    wanted = {name: value for name, value in context.items() if value}
    variables = wanted.get("env_vars", {})
    plain = set(wanted) <= PLAIN and wanted.get("py_executable", sys.executable) == sys.executable
    if not plain or told["--language"] != "PYTHON" or any("$" in value for value in variables.values()):
        return [sys.executable, environment[ORIGINAL], *arguments], environment
    return [sys.executable, *rest], {**environment, **variables}


if __name__ == "__main__":
    wanted_words, wanted_environment = command(sys.argv[1:], dict(os.environ))
    os.execve(wanted_words[0], wanted_words, wanted_environment)
