"""Process: command line, settings, logging and the server; the only reader of the environment."""
