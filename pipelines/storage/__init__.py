"""Files of a home, here or in an object store: whole or not there, locked, published all at once.

Comes in: paths below a home. Goes out: files that survive any kill, and folders that appear whole. Read filesystems
(which store a path is on), home_files (fetch and push), atomic and tables (one file), publish and generations (a
folder at once), locks and lease (one writer at a time), at_once (many waits together), digests.
"""
