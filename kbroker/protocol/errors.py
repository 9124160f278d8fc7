"""The exception that carries a Kafka error code to whoever turns it into a response."""

from kbroker.protocol.error_codes import ErrorCode


class KafkaError(Exception):
    """An error that a client is to be told. ``message`` is None where the code says enough."""

    def __init__(self, error_code: ErrorCode, message: str | None = None) -> None:
        super().__init__(error_code, message)
        self.error_code = error_code
        self.message = message

    def __str__(self) -> str:
        if self.message is None:
            return self.error_code.name
        return f"{self.error_code.name}: {self.message}"
