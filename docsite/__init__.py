"""The documents as a site: `make docs` writes it to ./site. The package headrace does not know it."""
