"""The parts of the store suite, one a subject; `headrace.testing.store_suite` puts them together."""
