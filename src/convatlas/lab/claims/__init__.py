"""The claims, one a file: `exact`, `measure`, `judge` and `draw` are what `Experiment` says of them."""
