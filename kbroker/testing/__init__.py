"""For tests of kbroker and of programs that use it."""
