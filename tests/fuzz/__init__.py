"""Hostile input, made up: what reads it raises our own errors, and nothing else happens."""
