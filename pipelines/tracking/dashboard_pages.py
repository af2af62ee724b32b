"""MLflow's server as ``mind ui`` starts it: its pages open on runs and models.

MLflow 3 starts every browser in its pages of agents and prompts, with an assistant open over a third of the page. Both
choices are kept by the browser. This app writes ours where the browser has none; what somebody then clicks stays.
MLflow finds it by the entry point ``mlflow.app`` of pyproject.toml.
"""

from __future__ import annotations

from flask import Response, request
from mlflow.server import app as pages
from mlflow.server.fastapi_app import app

__all__ = ["app"]

CHOICES = {  # names of MLflow 3.17's localStorage; the values are JSON
    "mlflow.workflowType_v1": '"machine_learning"',
    "mlflow.assistant.fab.autoOpenedOnFirstLoad_v1": "true",
}
SCRIPT = "".join(f"localStorage.getItem('{key}')??localStorage.setItem('{key}','{CHOICES[key]}');" for key in CHOICES)


@pages.after_request
def with_choices(response: Response) -> Response:
    """Put the script before all others of the start page, which alone is HTML at the root."""
    if request.path == "/" and response.mimetype == "text/html" and response.status_code == 200:
        response.direct_passthrough = False
        response.set_data(response.get_data().replace(b"<head>", f"<head><script>{SCRIPT}</script>".encode(), 1))
        for header in ("ETag", "Last-Modified"):  # of the file as it was
            response.headers.pop(header, None)
        response.headers["Cache-Control"] = "no-store"
    return response
