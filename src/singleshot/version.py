"""The version of the package: what weights files and run folders say they were made by."""

__version__ = "0.1.0.dev0"
