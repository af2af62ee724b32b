"""The raw log, file by file: from bytes to clean events, before anything is known of the whole.

Comes in: a path of the configuration. Goes out: tables of user, item and time, and the rows that are no good with
their reason. Read sources (which files, cut into which pieces), formats (a piece as blocks of Arrow), datasource (the
same as a source of Ray Data), ids (one type and one hash for any id), normalise (a block as clean events).
"""
