"""What the tests stand on: real servers, the fault proxy, the runner of the command line, and trees of files."""
