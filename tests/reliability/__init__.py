"""kill -9 under load: what a broker acknowledged must be there afterwards, once and in order."""
