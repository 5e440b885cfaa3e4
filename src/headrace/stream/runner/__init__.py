"""Running a pipeline on the embedded engine: claims in, one commit, deliveries out.

    reader threads ─▶ chunks (at most two ahead) ─▶ engine.step ─▶ transact ─▶ outbox thread
                                                       state + output + acknowledgement

The state's name is `stream:PIPELINE` (see `keys.py` for its keys).
"""
