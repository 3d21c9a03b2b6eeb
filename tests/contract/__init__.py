"""Contracts between README, `--help` and both packages."""
