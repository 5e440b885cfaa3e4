"""The web server: connections produce requests, a bounded queue holds them, worker processes pull them."""
