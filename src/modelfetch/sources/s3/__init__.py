"""Amazon S3 and S3-compatible stores as a source.

spec.py            addresses, options from the environment
source.py          resolve, checksums, signed requests, uploads
sigv4.py           signatures of GET requests (SigV4)
errors.py          botocore's exceptions and S3's error codes, mapped to `ModelfetchError`s
upload.py          multipart uploads by boto3
response_limit.py  size limit of the responses that botocore reads
"""
