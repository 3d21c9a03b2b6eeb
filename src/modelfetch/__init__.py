"""Fetcher of machine-learning models from object storage.

The public interface: command line, environment, exit codes and receipt. The modules are private.
"""

__version__ = "0.1.0"
