"""Scenario "kills": under load, SIGKILL for a random role, for the supervisor, or for all, again and again.

Some kills come while the victim of the one before is still recovering, some while the whole gateway is still starting. Roles
are started again by their supervisor; the supervisor by this program, as an init system would.
"""

from __future__ import annotations

import random
import time

from bench.crash import processes
from bench.crash.bed import Bed, Options, Result, tell
from bench.crash.proof import NOTICE_S, Disturbance

NAME = "kills"
ROLES = ("receiver", "queue", "deliverer", "resolver", "control", "maildir")
WEIGHTS = {
    "receiver": 4,
    "queue": 4,
    "deliverer": 3,
    "maildir": 1,
    "resolver": 1,
    "control": 1,
    "supervisor": 1,
    "all": 3,
}
MEAN_PAUSE_S = 0.9
AGAIN_SHARE = 0.2  # a second kill of the same role as soon as it lives again
STARTING_SHARE = 0.3  # of the kills of all: while the gateway is starting
HOLD_EVERY = 6  # kills: before one of them the operator holds everything, and behind it lets it go
ENDS_ATTEMPTS = frozenset(("queue", "supervisor", "all"))  # behind them nothing that is held is under way
QUICK_KILLS = 10
BACK_LIMIT_S = 60.0


def run(options: Options) -> Result:
    """The whole scenario."""
    count = QUICK_KILLS if options.quick else options.kills
    rng = random.Random(f"{options.seed} {NAME}")
    kills: dict[str, int] = {}
    with Bed(NAME, options) as bed:
        bed.gateway.start()
        bed.start_load()
        bed.run_load(1.0)
        plan = plan_kills(rng, count)
        for number, target in enumerate(plan, 1):
            if is_held := number % HOLD_EVERY == 2:
                bed.hold_all()
            done = _kill(bed, target, rng)
            if is_held:
                if target in ENDS_ATTEMPTS:
                    bed.held_since_s = time.monotonic() + NOTICE_S
                bed.check_operator(f"after a kill of {target}")
                bed.release_all()
            kills[target] = kills.get(target, 0) + done
            tell(f"{NAME}: {number} of {len(plan)}: {target}, {bed.count_accepted()} accepted so far")
            bed.run_load(MEAN_PAUSE_S * rng.uniform(0.1, 1.9))
        back_s = bed.wait_accepted(time.monotonic(), BACK_LIMIT_S, "after the last kill")
        result = bed.finish()
        result.figures |= {"kills": sum(kills.values()), "killed": kills, "accepted_again_s": round(back_s, 2)}
        result.figures["damage_reports"] = bed.gateway.count_events("damaged")
        if sum(kills.values()) < count:
            result.problems.append(f"only {sum(kills.values())} of {count} kills hit a living process")
        return result


def plan_kills(rng: random.Random, count: int) -> list[str]:
    """Whom to kill, in order: each of the targets at least once if there are enough kills, then by weight."""
    targets = list(WEIGHTS)
    plan = rng.choices(targets, list(WEIGHTS.values()), k=max(0, count - len(targets)))
    plan = (targets + plan)[:count]
    rng.shuffle(plan)
    return plan


def _kill(bed: Bed, target: str, rng: random.Random) -> int:
    """Kill and see that everything is started again; returns how many kills that were."""
    gateway = bed.gateway
    began_s = time.monotonic()
    if target in ("all", "supervisor"):
        count = 1
        (gateway.kill_all if target == "all" else gateway.kill_supervisor)()
        bed.disturbances.append(Disturbance(target, began_s, time.monotonic()))
        while rng.random() < STARTING_SHARE:
            gateway.launch()
            time.sleep(rng.uniform(0.1, 1.5))
            began_s = time.monotonic()
            gateway.kill_all()
            bed.disturbances.append(Disturbance("all", began_s, time.monotonic()))
            count += 1
        gateway.start()
        return count
    return _kill_role(bed, target) + (_kill_role(bed, target, rng) if rng.random() < AGAIN_SHARE else 0)


def _kill_role(bed: Bed, role: str, rng: random.Random | None = None) -> int:
    """Kill a role when it lives; with `rng` a moment after that."""
    processes.wait_until(lambda: role in bed.gateway.roles(), f"{role} is started again", BACK_LIMIT_S)
    if rng is not None:
        time.sleep(rng.uniform(0.0, 0.4))
    began_s = time.monotonic()
    pid = bed.gateway.kill_role(role)
    processes.wait_until(lambda: pid not in bed.gateway.living(), f"killed {role} is gone", BACK_LIMIT_S)
    bed.disturbances.append(Disturbance(role, began_s, time.monotonic()))
    return 1 if pid else 0
