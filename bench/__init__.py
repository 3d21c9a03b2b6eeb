"""Measures modelfetch side by side with what else fetches models; `make bench` runs it, README.md says what and how."""
