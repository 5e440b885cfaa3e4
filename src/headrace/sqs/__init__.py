"""The SQS wire API: JSON 1.0 and Query, as AWS answers them. `service.py` is where to start."""
