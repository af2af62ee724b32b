"""`make bench-quality`: how good the lists are, beside rules and other people's models."""
