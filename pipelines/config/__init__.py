"""The configuration: one validated tree from a YAML file, a preset and ``--set``.

Comes in: a file and a command's options. Goes out: a frozen `Config`, or one line that says what is wrong and who set
it. Read schema (every setting, with its manual), load (what wins over what), explain (the one line), home_location
(where a home lies), redact (no secret is shown), presets/ (the recipes). Imports neither Ray,
torch nor MLflow.
"""
