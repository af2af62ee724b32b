"""Ray, as every stage meets it: a session, its nodes, and a pass of Ray Data.

Comes in: the ray section of a configuration. Goes out: a running Ray, and errors that are one line. Read session
(start or join, and what Ray may say), local_start (a Ray of one command), template and worker_start (how its workers
come to be), standing and keeper (a Ray that stays), nodes (what each of them reaches and has), ray_data (a pass: its
operators by name, its records, its statistics).
"""
