"""The store on PostgreSQL: any number of broker nodes on one database, and the database decides.

Every rule is a statement over arrays: what a node's clients ask for at once is one statement and one commit. A node keeps
nothing that another would miss: it may die at any moment.

    lane          a thread and a connection; takes all that waits for it, runs it as one transaction  (`lane.py`)
    family        the operations of one type in such a batch, and the function that runs them         (`families.py`)
    transaction   what such a function sees: statements, `now`, the catalogue, what it makes ready     (`transaction.py`)
    catalogue     queues and topics, in memory; each transaction checks that it is the newest          (`catalog.py`)
    watch         when a queue that somebody waits for will have something                             (`watch.py`)

To add an operation: write `def name(tx, operations) -> Answers` in a module of its family and name it in `families.py`.
Statements that it sends go out at once with those of the other families; it `yield`s before it reads their results.
"""
