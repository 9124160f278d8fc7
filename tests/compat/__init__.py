"""Real clients against a broker process, over sockets, as a user's program does it.

The broker under test (see ``broker_under_test.py``) is kbroker unless the environment names
another. A test that Apache Kafka fails is a wrong test.
"""
