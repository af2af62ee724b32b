"""What must not leave this machine with a job: everybody who sees the dashboard sees its command and environment."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from pipelines.config.redact import redact
from pipelines.errors import UserError

MIN_LENGTH = 8  # of a secret of the local environment: a shorter text may be anything
WHERE = "set it in the environment of the nodes, or in a file mounted there"
SECRET_NAME = re.compile(
    r"passw(or)?d|passphrase|secret|credential"
    r"|(?<=[_.-])pwd(?![a-z])"  # PWD alone is where the shell is
    r"|(?<![a-z])(token|jwt|sas|(access|account|api|private)?keys?)(?![a-z])",
    re.IGNORECASE,
)
NAME_OF_A_PLACE = re.compile(r"_(path|file|dir)$|^GOOGLE_APPLICATION_CREDENTIALS$", re.IGNORECASE)
SECRET_VALUE = re.compile(
    r"\b(AKIA|ASIA)[0-9A-Z]{16}\b"  # AWS
    r"|\bgh[opsu]_\w{30,}|\bgithub_pat_\w{30,}|\bglpat-[\w-]{20,}"
    r"|\bhf_\w{30,}|\bxox[abp]-[\w-]{10,}|\bsk-[\w-]{20,}"
    r"|\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]+"  # JSON web token
    r"|-----BEGIN [A-Z ]*PRIVATE KEY|\b(AccountKey|SharedAccessKey)="  # Azure
)


def is_secret_name(name: str) -> bool:
    """Say whether a variable or setting of this name holds a secret; the path of one is none."""
    return SECRET_NAME.search(name) is not None and NAME_OF_A_PLACE.search(name) is None


def local_secrets(environment: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """Find the values of the local environment that must not be sent, the token of Ray's file among them; no paths."""
    found = {value.strip() for name, value in environment.items() if is_secret_name(name)}
    for file in (environment.get("RAY_AUTH_TOKEN_PATH"), os.path.expanduser("~/.ray/auth_token")):
        try:
            found.add(Path(file).read_text("utf-8").strip() if file else "")
        except (OSError, UnicodeDecodeError):
            continue
    return tuple(sorted(value for value in found if len(value) >= MIN_LENGTH and not os.path.exists(value)))


def refuse_files_with_secrets(files: Mapping[str, Path], known: tuple[str, ...]) -> None:
    """See that no file that is sent as code holds a key or a token; settings are looked at line by line besides.

    files : by their place in the package.  known : values of secrets, from `local_secrets`.

    Raises
    ------
    UserError
        Naming the file and its line, never the text.
    """
    for place, file in files.items():
        text = file.read_text("utf-8", errors="ignore")
        found = SECRET_VALUE.search(text)
        start = found.start() if found else next((at for each in known if (at := text.find(each)) >= 0), None)
        if start is not None:
            line = text.count("\n", 0, start) + 1
            raise UserError(f"{place}, line {line}: holds a secret, and every node would have it; {WHERE}")


def refuse_secret(source: str, text: str, known: tuple[str, ...], name: str = "") -> None:
    """See that a text may be sent.

    Parameters
    ----------
    source : how the message names it, without its value.
    known : values of secrets, from `local_secrets`.
    name : of the variable or setting whose value the text is.

    Raises
    ------
    UserError
        Naming the source, never the text.
    """
    if name and is_secret_name(name) and text:
        raise UserError(f"{source}: sounds like a secret, and everybody who sees the dashboard would see it; {WHERE}")
    if redact(text) != text:
        raise UserError(f"{source}: holds a password or token ({redact(text).strip()}), which everybody who sees the "
                        f"dashboard would see; {WHERE}")  # fmt: skip
    if SECRET_VALUE.search(text) or any(secret in text for secret in known):
        raise UserError(f"{source}: its value is a secret, and everybody who sees the dashboard would see it; {WHERE}")
