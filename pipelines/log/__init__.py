"""The raw log, file by file: from bytes to clean events, before anything is known of the whole.

Comes in: a path of the configuration. Goes out: tables of user, item and time, and the rows that are no good with
their reason. Read sources (which files, cut into which pieces), text_files, csv_rows, json_rows and formats (a piece
as blocks of Arrow), datasource (the same as a source of Ray Data), null_words, ids, times and order_keys (what values
mean), normalise (a block as clean events); event_lists (a row with a list of events). proposal writes a configuration
for a log that has none, public_sets one for a public data set.
"""
