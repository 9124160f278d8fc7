"""The composition root: the only place that constructs the parts and joins them."""
