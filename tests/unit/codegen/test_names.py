"""Schema names to Python names."""

import pytest

from codegen.names import attribute, class_name, constant, snake_case


@pytest.mark.parametrize(
    ("name", "snake"),
    [
        ("TopicId", "topic_id"),
        ("timeoutMs", "timeout_ms"),
        ("SessionTimeoutMs", "session_timeout_ms"),
        ("Enable2Pc", "enable2_pc"),
        ("V3AndBelowTopics", "v3_and_below_topics"),
        ("ResultsByTopicV3AndBelow", "results_by_topic_v3_and_below"),
        ("KRaftVersionRecord", "kraft_version_record"),
        ("LastKnownElr", "last_known_elr"),
        ("group", "group"),
    ],
)
def test_snake_case(name, snake):
    assert snake_case(name) == snake
    assert constant(name) == snake.upper()


def test_keywords_get_an_underscore():
    assert attribute("From") == "from_"
    assert attribute("Topic") == "topic"


def test_class_names():
    assert class_name("topicData") == "TopicData"
    assert class_name("FetchRequest") == "FetchRequest"
