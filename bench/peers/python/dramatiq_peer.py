"""Dramatiq: the module that `dramatiq` loads, and as a program the producer."""

import dramatiq
from dramatiq.brokers.redis import RedisBroker

import common

# Reliable as it comes: a message is acknowledged after its job, and those of dead workers are found by their heartbeat.
broker = RedisBroker(url=common.REDIS)
dramatiq.set_broker(broker)


@dramatiq.actor
def no_op(payload):
    # No result backend: nothing is kept.
    common.report(payload)


if __name__ == "__main__":
    common.produce(no_op.send)
