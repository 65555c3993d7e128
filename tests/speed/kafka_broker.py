"""A Kafka broker in a process of its own: librdkafka's mock cluster, which speaks the real protocol and keeps nothing.

    python kafka_broker.py

Prints its address, and ends with its parent. It has no disk, so it can be stopped and continued (SIGSTOP, SIGCONT), as
a broker that hangs or a line that is cut; what a broker's death costs cannot be seen with it.
"""

from __future__ import annotations

import ctypes
import signal

from confluent_kafka import Producer

PR_SET_PDEATHSIG = 1


def main() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    cluster = Producer({"bootstrap.servers": "none", "test.mock.num.brokers": 1, "log_level": 0})
    for broker in cluster.list_topics(timeout=10).brokers.values():
        print(f"{broker.host}:{broker.port}", flush=True)
    signal.pause()


if __name__ == "__main__":
    main()
