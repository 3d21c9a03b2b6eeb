"""Provenance: the manifest of a push and OpenSSF model signatures, checked before the first byte is pulled.

manifest.py         the JSON manifest: sizes and sha256 of every file
manifest_check.py   the plan against the manifest
model_signing.py    signatures made and verified; the only user of model_signing
signature_check.py  the plan and its files against the signed list
"""
