import uuid

import pytest

from kbroker.common.entropy import SeededEntropy, SystemEntropy


@pytest.mark.parametrize("entropy", [SystemEntropy(), SeededEntropy(1)])
def test_uuids_are_version_4(entropy):
    for _ in range(100):
        for parsed in (uuid.UUID(bytes=entropy.uuid_bytes()), uuid.UUID(entropy.uuid_text())):
            assert parsed.version == 4
            assert parsed.variant == uuid.RFC_4122


def test_the_text_is_the_canonical_one():
    text = SeededEntropy(7).uuid_text()
    assert text == str(uuid.UUID(bytes=SeededEntropy(7).uuid_bytes()))


def test_two_uuids_differ_and_a_seed_repeats_them():
    assert SystemEntropy().uuid_bytes() != SystemEntropy().uuid_bytes()
    assert SeededEntropy(3).uuid_bytes() == SeededEntropy(3).uuid_bytes()
    assert SeededEntropy(3).uuid_bytes() != SeededEntropy(4).uuid_bytes()


@pytest.mark.parametrize("entropy", [SystemEntropy(), SeededEntropy(1)])
def test_numbers_stay_in_their_range(entropy):
    assert {entropy.randint(2, 4) for _ in range(200)} == {2, 3, 4}
    assert all(0 <= entropy.random() < 1 for _ in range(100))
