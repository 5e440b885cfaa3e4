"""`python -m benchmarks postgres`: headrace's nodes on one PostgreSQL, and other durable queues, each through the same shapes.

command     what is run, the tables, the aims
contenders  who: which servers, which client
servers     databases, nodes and peers as processes
running     one measurement: clients, and the CPU of everybody in the same window
clients/    one program a contender; no headrace in those of the peers
"""
