"""The page at /docs: fields, an answer and a form to try it. It loads nothing from anywhere else."""

from __future__ import annotations

import json
from html import escape
from typing import Any

from pipelines.endpoint.follow import Current
from pipelines.endpoint.schema import MISTAKES, answer_schema, example, request_schema
from pipelines.words import counted

STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem;color:#1c2733}
h1{font-size:1.5rem}h2{font-size:1.1rem;margin-top:2rem}code,pre,textarea{font:13px/1.45 ui-monospace,monospace}
table{border-collapse:collapse;width:100%}td,th{text-align:left;vertical-align:top;padding:.3rem .6rem;
border-bottom:1px solid #dde3ea}th{color:#5a6b7d;font-weight:600}pre,textarea{background:#f4f6f9;
border:1px solid #dde3ea;border-radius:6px;padding:.7rem;width:100%;box-sizing:border-box;overflow:auto}
textarea{min-height:9rem}
button{background:#1b6ca8;color:#fff;border:0;border-radius:6px;padding:.5rem 1.2rem;font-size:15px;cursor:pointer}
.muted{color:#5a6b7d}
"""
SCRIPT = """
const line = document.getElementById('curl');
line.textContent = line.textContent.replace('localhost:8000', location.host);
document.getElementById('send').onclick = async () => {
  const out = document.getElementById('out'), started = performance.now();
  const answer = await fetch('recommend', {method: 'POST', body: document.getElementById('body').value});
  const text = await answer.text();
  let shown = text; try { shown = JSON.stringify(JSON.parse(text), null, 1); } catch (e) {}
  out.textContent = answer.status + ' in ' + Math.round(performance.now() - started) + ' ms\\n' + shown;
};
"""


def page(current: Current) -> str:
    """Write the page for the model that answers."""
    answerer = current.answerer
    card = answerer.model.card
    version = "" if current.source.version is None else f", version {escape(current.source.version)}"
    asked, answered = request_schema(answerer)["properties"], answer_schema(answerer)["properties"]
    features = asked["profile"]["properties"]
    tried = json.dumps(example(answerer), indent=1, ensure_ascii=False)
    curl = f"curl -s localhost:8000/recommend -d '{json.dumps(example(answerer), ensure_ascii=False)}'"
    return f"""<!doctype html><html lang="en"><meta charset="utf-8"><title>mind serve</title><style>{STYLE}</style>
<h1>mind serve</h1>
<p>Model <b>{escape(card.name)}</b>{version}: {counted(len(answerer.ids), "item")},
{counted(card.config.interests, "interest")}.
<span class="muted">Also: <a href="health">/health</a>, <a href="ready">/ready</a>, <a href="metrics">/metrics</a>,
<a href="openapi.json">/openapi.json</a></span></p>
<h2>POST /recommend</h2>
<pre id="curl">{escape(curl)}</pre>
{_table(("field", "type", "default", "what"), [_row(name, each) for name, each in asked.items()])}
<h2>Profile features</h2>
{_table(("feature", "type", "such as"), [_feature(name, each) for name, each in features.items()])}
<h2>Answer</h2>
{_table(("field", "type", "what"), [_answer(name, each) for name, each in _flat(answered)])}
<h2>Mistakes</h2>
<p>The answer is <code>{{"error": one line, "request_id": ...}}</code>; nothing that is sent ends in another 5xx.</p>
{_table(("status", "what"), [(status, line) for status, line in MISTAKES.items()])}
<h2>Try it</h2>
<textarea id="body" spellcheck="false">{escape(tried)}</textarea><p><button id="send">Send</button></p>
<pre id="out"></pre><script>{SCRIPT}</script></html>"""


def _row(name: str, schema: dict[str, Any]) -> tuple[str, str, str, str]:
    default = json.dumps(schema["default"]) if "default" in schema else ("required" if name == "history" else "")
    return name, _kind(schema), default, schema.get("description", "")


def _feature(name: str, schema: dict[str, Any]) -> tuple[str, str, str]:
    return name, _kind(schema), ", ".join(map(str, schema.get("examples", ())))


def _flat(fields: dict[str, Any], prefix: str = "") -> list[tuple[str, dict[str, Any]]]:
    """List fields, and those of the objects in them, by path."""
    found = []
    for name, schema in fields.items():
        found.append((prefix + name, schema))
        inner = schema.get("items", schema)
        found += _flat(inner.get("properties", {}), f"{prefix}{name}{'[]' if 'items' in schema else ''}.")
    return found


def _answer(name: str, schema: dict[str, Any]) -> tuple[str, str, str]:
    return name, _kind(schema), schema.get("description", "")


def _kind(schema: dict[str, Any]) -> str:
    if "enum" in schema:
        return " or ".join("null" if each is None else str(each) for each in schema["enum"])
    kind = schema.get("type", "")
    words = [kind] if isinstance(kind, str) else list(kind)
    if "array" in words and "items" in schema:
        words[words.index("array")] = f"list of {_kind(schema['items'])}"
    if "maximum" in schema:
        words.append(f"{schema['minimum']:,} to {schema['maximum']:,}")
    if "maxItems" in schema:
        words.append(f"at most {schema['maxItems']:,}")
    return ", ".join(words)


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    heads = "".join(f"<th>{escape(each)}</th>" for each in head)
    lines = "".join(
        "<tr>" + "".join(f"<td>{f'<code>{escape(cell)}</code>' if not place else escape(cell)}</td>"
                         for place, cell in enumerate(row)) + "</tr>"
        for row in rows
    )  # fmt: skip
    return f"<table><tr>{heads}</tr>{lines}</table>"
