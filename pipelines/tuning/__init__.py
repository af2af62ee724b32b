"""From a campaign's YAML and a dataset to a winner that is trained, tested and registered, and a report.

Comes in: the file (config, load), a space of settings (space, check_space). Goes out: a ledger of trials, MLflow runs,
`report.html`, a challenger. Read tune first, then search (the ledger in Ray Tune's hands) with ledger, proposals and
schedulers; trial/ (what trains); finish; report/. live_table and recorder watch, concurrency counts, wording spells.
"""
