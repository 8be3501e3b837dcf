"""Train small Hindi language models from scratch on a fixed budget of words."""

__version__ = "0.1.0"
