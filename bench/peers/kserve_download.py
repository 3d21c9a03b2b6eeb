"""Download as KServe's storage initializer does: URI DIRECTORY."""

import sys

from kserve_storage import Storage

uri, directory = sys.argv[1:]
Storage.download(uri, directory)
