"""ListGroups: filters, many groups, coordinators that load."""

from inspect import iscoroutine

import anyio

from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.messages.list_groups_request import ListGroupsRequest
from kbroker.protocol.messages.list_groups_response import ListGroupsResponse
from tests.unit.coordinator.group.bench import GroupBench, now


def listed(bench: GroupBench, *, states: list[str] = [], types: list[str] = []) -> set[str]:  # noqa: B006
    response = bench.coordinator.requests.list_groups(
        ListGroupsRequest(states_filter=states, types_filter=types)
    )
    assert isinstance(response, ListGroupsResponse)
    return {group.group_id for group in response.groups}


def three_groups() -> GroupBench:
    bench = GroupBench()
    bench.stable_group(group_id="stable")
    bench.join_new(group_id="joining")
    now(bench.commit({0: 1}, group_id="simple"))
    return bench


def test_all() -> None:
    response = three_groups().coordinator.requests.list_groups(ListGroupsRequest())
    assert isinstance(response, ListGroupsResponse)
    rows = {(g.group_id, g.protocol_type, g.group_state, g.group_type) for g in response.groups}
    assert rows == {
        ("stable", "consumer", "Stable", "classic"),
        ("joining", "consumer", "PreparingRebalance", "classic"),
        ("simple", "", "Empty", "classic"),
    }


def test_states_are_filtered_whatever_their_case() -> None:
    bench = three_groups()
    assert listed(bench, states=["sTaBlE"]) == {"stable"}
    assert listed(bench, states=["Empty", " preparingrebalance "]) == {"simple", "joining"}
    assert listed(bench, states=["nonsense"]) == set()


def test_types_are_filtered() -> None:
    bench = three_groups()
    assert listed(bench, types=["Classic"]) == {"stable", "joining", "simple"}
    assert listed(bench, types=["consumer"]) == set()
    assert listed(bench, types=["nonsense"]) == set()


def test_a_long_list_gives_way_to_others() -> None:
    bench = GroupBench()
    for number in range(1_500):
        now(bench.commit({0: 1}, group_id=f"g{number}"))
    answer = bench.coordinator.requests.list_groups(ListGroupsRequest(states_filter=["empty"]))
    assert iscoroutine(answer)

    async def finish() -> ListGroupsResponse:
        return await answer

    assert len(anyio.run(finish).groups) == 1_500


def test_a_coordinator_that_loads_is_an_error() -> None:
    bench = GroupBench()
    bench.stable_group()
    other = GroupBench(log=bench.log)  # nobody runs its loader
    response = other.coordinator.requests.list_groups(ListGroupsRequest())
    assert isinstance(response, ListGroupsResponse)
    assert response.error_code == ErrorCode.COORDINATOR_LOAD_IN_PROGRESS
