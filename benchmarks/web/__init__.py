"""The web server against its peers: `python -m benchmarks web --mode quick|full`. See docs/benchmarks.md."""
