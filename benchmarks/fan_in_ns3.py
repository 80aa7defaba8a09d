"""The same fan-in as ns-3 events, for the comparison in fan_in.py.

Runs by itself, under any Python that has ns-3 (``pip install ns3``, Linux only). It reads the
costs as JSON from standard input and prints {"seconds": CPU time, "delivered": n}. ns-3 has no
processes: each delay ends in a callback, and what a process would remember is in a list.
"""

import json
import random
import sys
import time
from collections import deque

# Python is called through one std::function that is made once: to turn a Python function into a
# C++ one costs far more than an event does.
ONE_DOOR = """
#include <functional>
std::function<void(int, int)> python;
void enter(int act, int who) { python(act, who); }
void after(long ns, int act, int who) {
    ns3::Simulator::Schedule(ns3::NanoSeconds(ns), &enter, act, who);
}
"""


def main() -> None:
    work = json.load(sys.stdin)
    from ns import ns

    ns.cppyy.cppdef(ONE_DOOR)
    ticket, copy, read = (
        {int(me): ns for me, ns in work[name].items()} for name in ("ticket", "copy", "read")
    )
    draw = {me: random.Random(f"fan_in 0 kernel {me}").randrange for me in ticket}
    sent = dict.fromkeys(ticket, 0)
    ring, blocked, waiting = deque(), deque(), []
    state = {"enabled": True, "used": 0, "idle": True, "pending": 0, "read": 0, "delivered": 0}

    number = {}  # of each callback

    def after(delay, act, who=0):
        schedule(delay, number[act], who)

    def think(me):
        if sent[me] < work["messages"]:
            after(draw[me](2 * work["gap_ns"] + 1), take, me)

    def take(me):
        after(ticket[me], taken, me)

    def taken(me):
        if state["used"] == work["slots"]:
            blocked.append(me)
        else:
            state["used"] += 1
            after(copy[me], copied, me)

    def copied(me):
        ring.append((me, sent[me], 0, 1, sent[me]))
        sent[me] += 1
        if state["enabled"]:
            after(work["icr"], ipi_sent, me)
        else:
            think(me)

    def ipi_sent(me):
        after(work["wire"], ipi_arrived)
        think(me)

    def ipi_arrived(_):
        state["pending"] += 1
        if state["idle"]:
            interrupt()

    def interrupt():
        state["idle"], state["pending"] = False, state["pending"] - 1
        after(work["isr"], isr_done)

    def isr_done(_):
        state["enabled"] = False
        after(work["softirq"], poll)

    def poll(_):
        state["read"] = 0
        next_message()

    def next_message():
        if state["read"] < work["budget"] and ring:
            after(read[ring[0][0]], message_read)
        elif state["read"] == work["budget"]:
            poll(0)
        else:
            after(work["poll_exit"] + work["look"], rearm)

    def message_read(_):
        waiting.append(ring.popleft())
        state["read"] += 1
        if blocked:
            me = blocked.popleft()
            after(copy[me], copied, me)
        else:
            state["used"] -= 1
        next_message()

    def rearm(_):
        state["enabled"] = True
        after(work["look"], look_again)

    def look_again(_):
        if ring:
            state["enabled"] = False
            poll(0)
        elif waiting:
            after(work["dispatch"], deliver)
        else:
            sleep()

    def deliver(_):
        waiting.pop()
        state["delivered"] += 1
        if waiting:
            after(work["dispatch"], deliver)
        else:
            sleep()

    def sleep():
        state["idle"] = True
        if state["pending"]:
            interrupt()

    acts = [
        take, taken, copied, ipi_sent, ipi_arrived, isr_done, poll, message_read, rearm,
        look_again, deliver,
    ]  # fmt: skip
    number.update({act: n for n, act in enumerate(acts)})
    door = ns.cppyy.gbl
    schedule, door.python = door.after, lambda act, who: acts[act](who)
    for me in ticket:
        think(me)
    start = time.process_time()
    ns.Simulator.Run()
    seconds = time.process_time() - start
    print(json.dumps({"seconds": seconds, "delivered": state["delivered"]}))


if __name__ == "__main__":
    main()
