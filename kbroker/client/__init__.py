"""A small async Kafka client on the project's own codec; it works against any Kafka since 1.0.

``KafkaClient`` finds brokers and leaders and repeats what may succeed later; ``Producer`` and
``Reader`` write and read one topic; ``Admin`` looks after topics and settings.
"""
