"""What builds the site: docs/conf.py names these modules as extensions of Sphinx."""
