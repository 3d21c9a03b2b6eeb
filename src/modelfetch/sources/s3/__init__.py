"""S3 and every store that speaks the S3 protocol.

spec.py            addresses, options from the environment
source.py          resolve, checksums, signed requests, uploads
sigv4.py           signatures of GET requests (SigV4)
errors.py          botocore's exceptions and S3's error codes, as our errors
upload.py          multipart uploads by boto3
response_limit.py  bound on what botocore reads of a response
"""
