"""The JSON files that stages, actions and runs exchange, as types: what each holds, and its only reader.

In: a file. Out: a frozen object; `read` raises an ArtifactError that names file, key and remedy, `find` gives
None for what is missing or malformed, so that a decision can say no. Built in code, an unknown field is an
error; in a file it is left out, since others may add their own. NaN and infinities are null, timestamps UTC.
"""
