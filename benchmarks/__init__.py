"""How fast ima is, measured against floors and peers: `make bench`, or `python -m benchmarks`."""
