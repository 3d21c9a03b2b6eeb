"""s3: say here what this package is for."""
