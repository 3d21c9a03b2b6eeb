"""Google Cloud Storage, by the JSON API; google-auth gives credentials, the SDK uploads.

spec.py         addresses, options from the environment
source.py       resolve, checksums, authorised requests, uploads
credentials.py  credentials and tokens by google-auth
errors.py       exceptions of Google's libraries and error bodies, as our errors
upload.py       resumable uploads by the SDK
"""
