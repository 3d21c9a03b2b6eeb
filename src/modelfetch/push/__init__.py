"""Push: upload a model to a bucket, compare checksums, leave a manifest and, on request, a signature.

push.py         the use case
local_model.py  files to push, with fingerprints; changes during the push are refused
pack.py         a directory packed into an archive
"""
