"""One file per system that reproduces its claim: `python -m benchmarks --list`."""
