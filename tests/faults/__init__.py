"""Fault campaigns: pulls and pushes against real servers and volumes with faults, and a table of the outcomes."""
