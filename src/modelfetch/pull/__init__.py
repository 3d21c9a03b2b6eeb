"""Pull: resolve, plan, check provenance, transfer, verify, extract and publish a model.

pull.py        the use case
options.py     options of a pull, as values
fetch.py       a plan's objects into the staging area, verified
up_to_date.py  whether a destination already holds the planned version
"""
