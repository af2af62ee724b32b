"""What the data of a dataset are like: counts by part, checks, drift, and a page to look at.

Comes in: the sorted events and cuts of each part, the manifest. Goes out: quality.json and quality.html. Read
part_stats (what is counted, and how parts add up), columns, report (the checks), drift (against the version before),
page and svg_plots (how it looks), write (all of it into a dataset).
"""
