"""From the ledger of a campaign to what it says: pure functions of the trials' records, without Ray and MLflow.

Comes in: `TrialRecord`s, the campaign, the metric. Goes out: a leaderboard, sentences, figures, an HTML page.
Read results (ranking, winner, savings), importance (which settings matter), conclusion (the sentences), figures, html.
"""
