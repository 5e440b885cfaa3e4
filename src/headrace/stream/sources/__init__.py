"""Where rows come from: one module a kind of source, each a Reader."""
