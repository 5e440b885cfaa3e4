"""What the documents claim about speed, runnable: `python -m benchmarks --mode quick|full`. See docs/benchmarks.md."""
