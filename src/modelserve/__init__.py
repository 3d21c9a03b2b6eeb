"""modelserve: loads the model that an init container put on a volume, and answers predictions over HTTP.

Its interface is its environment, its routes and its exit codes; the receipt beside the model is its only tie to
whatever fetched it.
"""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("modelfetch")
except PackageNotFoundError:  # run from a source tree that was never installed
    __version__ = "0+unknown"
