"""The native system: a Python client, and its side of the broker. HTTP and msgpack, on the port that SQS uses."""
