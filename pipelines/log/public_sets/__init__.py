"""Configurations for the public data sets that people start from, as YAML, from a folder as it was unpacked. No Ray.

What the publishers say of their columns is written down here; what differs from release to release (a file that was
not downloaded, a column, an encoding, which way a table is written) is looked up in the files.
"""
