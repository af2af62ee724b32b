"""Hide what is secret in a URI, before it is shown, logged or stored."""

from __future__ import annotations

import re

URI = re.compile(r"(?<![\w+.-])[\w+.-]*://\S+")  # begins at a word's beginning: else the search is quadratic
LONGEST = 2000  # of a URI that is looked into, as those patterns are quadratic; of a longer one all is hidden
LOGIN = re.compile(
    r"(?:(?<=http://)|(?<=https://))[^/]*(?=@)"  # whatever stands before a web host
    r"|(?<=://)[^/]*:[^/]*(?=@)"
    r"|(?<=://)[^/:@]*:(?!\d+/).*(?=@)"  # a password with a raw slash, but not host:port/path@version
)
SECRET_PARAMETER = re.compile(
    r"([?&;][^=&;]*(?:key|secret|token|signature|pass|credential|(?<![a-z])(?:sig|sas|pwd|auth)(?![a-z]))[^=&;]*=)"
    r"[^&;'\"]*",
    re.IGNORECASE,
)


def redact(text: str) -> str:
    """Hide what is secret in any URI of the text: ``user:password@``, a token alone before a web host, and the values
    of query parameters whose names sound secret. A user alone, as the container of an ``abfs://`` URI, is not.

    >>> redact("https://ann:secret@host/path?sig=abc&page=2")
    'https://***@host/path?sig=***&page=2'
    """
    return URI.sub(_hidden, text)


def _hidden(uri: re.Match[str]) -> str:
    if len(uri[0]) > LONGEST:
        return f"{uri[0].partition('://')[0]}://***"
    return SECRET_PARAMETER.sub(r"\1***", LOGIN.sub("***", uri[0]))
