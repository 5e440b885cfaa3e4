"""The demo: a year of real flights through a broker that is killed in the middle. `make demo`, or `python -m demo`."""
