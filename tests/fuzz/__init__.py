"""Fuzzing: code that reads hostile input must raise only our own errors and have no other effect."""
