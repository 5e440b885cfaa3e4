"""Hypothesis without its deadline: how long an example takes says more of the machine than of the code."""

from hypothesis import settings

settings.register_profile("headrace", deadline=None)
settings.load_profile("headrace")
