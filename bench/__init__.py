"""Benchmark of modelfetch beside other tools that fetch models; run by `make bench`, described in README.md."""
