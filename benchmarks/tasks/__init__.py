"""Workers compared: headrace and Celery, Dramatiq, RQ, Huey, taskiq, with one worker process each."""
