"""Pull: fetch a planned model, verify every byte and publish the files at the destination.

pull.py        entry point: resolve, plan, fetch, publish
options.py     options of a pull
up_to_date.py  check of an existing destination, without a download
fetch.py       objects of a plan into the staging area
"""
