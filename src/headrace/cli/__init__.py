"""The command line. `main.py` is the way in; a command is loaded when it is called."""
