"""What README, `--help` and the two packages promise each other."""
