"""Poses: the tables of releases, files of one's own, and what they let through."""

import tomllib
from importlib.resources import files
from pathlib import Path

import pytest

from kbroker.cli.version import KAFKA_RELEASE
from kbroker.config.config_def import ConfigError
from kbroker.handlers.dispatch import Dispatcher
from kbroker.handlers.pose import Pose, load_pose
from kbroker.handlers.registry import HANDLERS
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.messages.api_versions_request import ApiVersionsRequest
from kbroker.protocol.messages.metadata_request import MetadataRequest
from kbroker.protocol.registry import APIS
from kbroker.request_context import CloseConnection
from tests.unit.handlers.asking import Asker, asking

PRODUCE, FETCH, METADATA, API_VERSIONS, CONSUMER_GROUP_HEARTBEAT = 0, 1, 3, 18, 68
RELEASES = tomllib.loads(files("kbroker.handlers").joinpath("releases.toml").read_text("utf-8"))


def pose(client: Asker, made: Pose) -> None:
    client.have(pose=made)
    client.dispatcher = Dispatcher(client.services, pose=made)


@pytest.mark.parametrize("release", RELEASES)
def test_every_release_is_known_and_grows(release: str) -> None:
    made = load_pose(release)
    assert made.ranges.keys() <= APIS.keys()
    assert {PRODUCE, FETCH, METADATA, API_VERSIONS} <= made.ranges.keys()
    following = list(RELEASES)[list(RELEASES).index(release) + 1 :][:1]
    for later in map(load_pose, following):
        for key in made.ranges.keys() & later.ranges.keys():
            assert later.ranges[key][1] >= made.ranges[key][1]


def test_ranges_that_are_known_by_heart() -> None:
    assert load_pose("2.8").ranges[PRODUCE] == (0, 9)
    assert load_pose("2.8.1").ranges[FETCH] == (0, 12)
    assert load_pose("3.9").ranges[METADATA] == (0, 12)
    assert load_pose("4.0").ranges[FETCH] == (4, 17)
    assert CONSUMER_GROUP_HEARTBEAT not in load_pose("2.8").ranges
    assert load_pose("4.0").features["group.version"] == (0, 1)
    assert load_pose("3.9").features == {"metadata.version": (1, 21)}


def test_a_range_is_cut_to_what_is_served() -> None:
    made = Pose({1: (0, 12), 2: (0, 1), 3: (5, 9)}, {})
    assert made.serves(1, 4, 18) == (4, 12)
    assert made.serves(2, 3, 5) is None
    assert made.serves(3, 0, 7) == (5, 7)
    assert made.serves(4, 0, 7) is None


class TestFiles:
    def test_toml(self, tmp_path: Path) -> None:
        path = tmp_path / "mine.toml"
        path.write_text('ApiVersions = "0-3"\nProduce = "3-7"\n[features]\n"group.version" = "0-1"')
        assert load_pose(str(path)) == Pose({18: (0, 3), 0: (3, 7)}, {"group.version": (0, 1)})

    def test_json(self, tmp_path: Path) -> None:
        path = tmp_path / "mine.json"
        path.write_text('{"ApiVersions": "0-3", "Fetch": "4"}')
        assert load_pose(str(path)) == Pose({18: (0, 3), 1: (4, 4)}, {})

    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            ('Produce = "3-7"', "ApiVersions is missing"),
            ('ApiVersions = "0-3"\nProduced = "3-7"', "there is no API 'Produced'; there are: Add"),
            ('ApiVersions = "0-3"\nProduce = "7-3"', "'7-3' is an empty range"),
            ('ApiVersions = "0-3"\nProduce = 3', 'Produce = 3: expected "oldest-latest"'),
            ('ApiVersions = "0-x"', "expected"),
            ('ApiVersions = "7-9"', "ApiVersions: this broker has only versions 0 to 4; leave it"),
            ('ApiVersions = "0-3"\nFetch = "90-91"', "Fetch: this broker has only versions 4 to"),
            ('ApiVersions = "0-3"\nfeatures = "x"', "features: expected a table"),
            ("ApiVersions", "mine.toml: "),
        ],
    )
    def test_what_is_wrong_is_said(self, tmp_path: Path, text: str, problem: str) -> None:
        path = tmp_path / "mine.toml"
        path.write_text(text)
        with pytest.raises(ConfigError) as caught:
            load_pose(str(path))
        assert problem in str(caught.value)

    @pytest.mark.parametrize("text", ["[]", "{", '"x"'])
    def test_json_that_is_no_table(self, tmp_path: Path, text: str) -> None:
        path = tmp_path / "mine.json"
        path.write_text(text)
        with pytest.raises(ConfigError, match=r"mine\.json"):
            load_pose(str(path))

    def test_the_release_that_is_spoken_anyhow_is_no_pose(self) -> None:
        assert load_pose("4.3") is None
        assert load_pose("4.3.1") is None
        assert KAFKA_RELEASE.startswith("4.3.")

    def test_neither_a_file_nor_a_release(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"known release; there are: 2\.0, .*3\.9.*4\.3"):
            load_pose("1.7")
        with pytest.raises(ConfigError, match="cannot be read"):
            load_pose(str(tmp_path))


@pytest.mark.anyio
class TestServing:
    @pytest.mark.parametrize("release", RELEASES)
    async def test_what_is_advertised_is_theirs_and_ours(self, release: str) -> None:
        theirs = load_pose(release)
        version = theirs.ranges[API_VERSIONS][1]
        async with asking() as client:
            pose(client, theirs)
            answer = await client.ask(API_VERSIONS, version, ApiVersionsRequest("a", "1"))
        told = {key.api_key: (key.min_version, key.max_version) for key in answer.api_keys}
        assert told
        for key, (low, high) in told.items():
            own = APIS[key]
            assert theirs.ranges[key][0] <= low <= high <= theirs.ranges[key][1]
            assert high <= own.max_version
            assert low >= own.min_version or key == PRODUCE
        assert told.keys() == {
            key
            for key in HANDLERS.keys() - {71, 72}
            if theirs.serves(key, APIS[key].min_version, APIS[key].max_version)
        }
        finalized = {f.name: f.max_version_level for f in answer.finalized_features}
        assert finalized.keys() <= theirs.features.keys()
        for name, level in finalized.items():
            assert level <= theirs.features[name][1]

    async def test_a_newer_version_closes_the_connection(self) -> None:
        async with asking() as client:
            pose(client, load_pose("2.8"))
            await client.ask(METADATA, 11, MetadataRequest())
            with pytest.raises(CloseConnection):
                await client.ask(METADATA, 12, MetadataRequest())
            with pytest.raises(CloseConnection):
                await client.ask_bytes(CONSUMER_GROUP_HEARTBEAT, 0, b"")

    async def test_a_newer_api_versions_is_told_the_range(self) -> None:
        async with asking() as client:
            pose(client, load_pose("2.8"))
            data = await client.ask_bytes(API_VERSIONS, 4, b"")
            answer, _ = client.read(API_VERSIONS, 0, data)
        assert answer.error_code == ErrorCode.UNSUPPORTED_VERSION
        (own,) = answer.api_keys
        assert (own.api_key, own.min_version, own.max_version) == (API_VERSIONS, 0, 3)

    async def test_importing_ahead_skips_what_is_not_served(self) -> None:
        async with asking() as client:
            pose(client, load_pose("2.0"))
            await client.dispatcher.import_ahead()
