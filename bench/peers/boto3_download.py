"""Minimal download with boto3: BUCKET KEY FILE."""

import sys

import boto3

bucket, key, file = sys.argv[1:]
boto3.client("s3").download_file(bucket, key, file)
