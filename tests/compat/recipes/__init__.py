"""The README's recipes, taken from the README and run where their tools are there."""
