"""Puts a machine-learning model where an app needs it.

The command line, the environment, the exit codes and the receipt are the interface; the modules are not.
"""

__version__ = "0.1.0"
