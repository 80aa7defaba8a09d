"""The same fan-in as SimGrid actors, for the comparison in fan_in.py.

Runs by itself, under any Python that has SimGrid (Debian: ``apt install python3-simgrid``, which
belongs to the system's python3). It reads the costs as JSON from standard input and prints
{"seconds": CPU time, "delivered": n}. The ring is a deque guarded by two semaphores: SimGrid's
own mailboxes model a network, which shared memory is not.
"""

import json
import random
import sys
import time
from collections import deque

NS = 1e-9  # SimGrid counts seconds


def main() -> None:
    work = json.load(sys.stdin)
    from simgrid import Actor, Engine, NetZone, Semaphore, this_actor

    engine = Engine(["fan_in", "--log=root.thres:error"])
    zone = NetZone.create_full_zone("zone")
    host = zone.create_host("machine", 1e9)
    zone.seal()
    ring, free, interrupts = deque(), Semaphore(work["slots"]), Semaphore(0)
    state = {"enabled": True, "delivered": 0, "stop": False}
    ticket, copy, read = (
        {int(me): ns for me, ns in work[name].items()} for name in ("ticket", "copy", "read")
    )
    total = len(ticket) * work["messages"]

    def sender(me):
        draw = random.Random(f"fan_in 0 kernel {me}").randrange
        for number in range(work["messages"]):
            this_actor.sleep_for(draw(2 * work["gap_ns"] + 1) * NS)
            this_actor.sleep_for(ticket[me] * NS)
            free.acquire()
            this_actor.sleep_for(copy[me] * NS)
            ring.append((me, number, 0, 1, number))
            if state["enabled"]:
                this_actor.sleep_for(work["icr"] * NS)
                Actor.create("wire", host, wire)

    def wire():
        this_actor.sleep_for(work["wire"] * NS)
        interrupts.release()

    def receiver():
        while state["delivered"] < total:
            interrupts.acquire()
            this_actor.sleep_for(work["isr"] * NS)
            state["enabled"] = False
            this_actor.sleep_for(work["softirq"] * NS)
            waiting = []
            while True:
                count = 0
                while count < work["budget"] and ring:
                    message = ring.popleft()
                    this_actor.sleep_for(read[message[0]] * NS)
                    free.release()
                    waiting.append(message)
                    count += 1
                if count == work["budget"]:
                    continue
                this_actor.sleep_for((work["poll_exit"] + work["look"]) * NS)
                state["enabled"] = True
                this_actor.sleep_for(work["look"] * NS)
                if not ring:
                    break
                state["enabled"] = False
            for _ in waiting:
                this_actor.sleep_for(work["dispatch"] * NS)
                state["delivered"] += 1

    for me in ticket:
        Actor.create(f"kernel {me}", host, sender, me)
    Actor.create("receiver", host, receiver)
    start = time.process_time()
    engine.run()
    seconds = time.process_time() - start
    print(json.dumps({"seconds": seconds, "delivered": state["delivered"]}))


if __name__ == "__main__":
    main()
