"""A campaign: many rounds on one data directory, and a last look at all their topics."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.reliability.rounds import (
    Broker,
    Death,
    RoundResult,
    audit_topic,
    choose_death,
    run_round,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.reliability.auditor import Violation

# Checkpoints as often as possible, so that rounds of half a second meet them.
BROKER_SETTINGS = {
    "log.flush.offset.checkpoint.interval.ms": "50",
    "log.flush.start.offset.checkpoint.interval.ms": "50",
    "replica.high.watermark.checkpoint.interval.ms": "50",
    "group.initial.rebalance.delay.ms": "0",
}

PLANTED_FAULTS = ("ack_before_append", "tail_without_crc", "producer_state_not_restored")

# The moment of death at which a planted fault does its harm; a fault that shows at any has none.
DEATH_FOR_FAULT = {
    "ack_before_append": "append.before_write",
    "producer_state_not_restored": "append.before_ack",
}


@dataclass
class CampaignResult:
    """All rounds, and what a second look at their topics found at the end."""

    seed: int
    rounds: list[RoundResult] = field(default_factory=list)
    late_violations: list[Violation] = field(default_factory=list)

    @property
    def violations(self) -> list[Violation]:
        return [v for result in self.rounds for v in result.violations] + self.late_violations

    @property
    def slowest_ready_s(self) -> float:
        return max(result.ready_after_s for result in self.rounds)

    def __str__(self) -> str:
        lines = [f"seed {self.seed}, {len(self.rounds)} rounds", *map(str, self.rounds)]
        lines.append(f"slowest start after a death: {self.slowest_ready_s * 1000:.0f} ms")
        lines += [f"VIOLATION {violation}" for violation in self.violations[:50]]
        return "\n".join(lines)


def run_campaign(
    broker: Broker,
    *,
    rounds: int,
    seed: int,
    with_failpoints: bool = True,
    report: Callable[[str], None] = print,
) -> CampaignResult:
    """Runs ``rounds`` rounds on a broker that is not running yet, and kills it at the end."""
    source = random.Random(seed)
    result = CampaignResult(seed)
    broker.start()
    try:
        for number in range(rounds):
            death = choose_death(number, source)
            if not with_failpoints:
                death = Death(death.delay_s)
            done = run_round(broker, f"round-{number}", death)
            report(str(done))
            result.rounds.append(done)
        # What one round left behind must also live through the deaths of the later ones.
        for done in result.rounds[:-1]:
            if not done.violations:
                result.late_violations += audit_topic(broker.bootstrap, done)
    finally:
        broker.kill()
    return result


def hunt_planted_fault(
    broker: Broker, fault: str, *, seed: int, at_most: int, report: Callable[[str], None] = print
) -> RoundResult | None:
    """Runs rounds on a broker with a planted fault until one reports a violation.

    None when ``at_most`` rounds all passed: then the harness is blind to this fault.
    """
    source = random.Random(seed)
    broker.start()
    try:
        for number in range(at_most):
            death = Death(source.uniform(0.05, 0.5))
            if fault in DEATH_FOR_FAULT:
                death = Death(death.delay_s, DEATH_FOR_FAULT[fault], source.randint(50, 300))
            done = run_round(broker, f"{fault}-{number}", death)
            report(str(done))
            if done.violations:
                return done
    finally:
        broker.kill()
    return None
