"""`headrace bench`: what this machine does, measured in some twenty seconds with processes and folders of its own."""
