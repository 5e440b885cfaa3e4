"""Where rows go: one module a kind of sink."""
