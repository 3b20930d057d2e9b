"""Suites of `launch/bench.py` that compare with another library, one file each."""
