"""A source of its own, outside the package: a hub with commits that redirects every file to a CDN.

source.py           the source: addresses, listing, requests
hub.py              the store on loopback: a hub and a CDN
test_toy_source.py  pulls that change no line of the package
"""
