"""Minimal download with google-cloud-storage: BUCKET KEY FILE."""

import sys

from google.cloud import storage

bucket, key, file = sys.argv[1:]
storage.Client().bucket(bucket).blob(key).download_to_filename(file)
