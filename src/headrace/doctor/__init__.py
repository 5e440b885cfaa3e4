"""`headrace doctor`: is this machine, and what is set, fit to run headrace? Facts, a judgement of each, and what to do."""
