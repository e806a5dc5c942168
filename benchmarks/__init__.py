"""Side-by-side timings. Each prints ratios from one run and keeps its section of docs/benchmarks.md."""
