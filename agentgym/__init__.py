"""Train and measure a language model as an agent over many turns."""

__version__ = "0.1.0"
