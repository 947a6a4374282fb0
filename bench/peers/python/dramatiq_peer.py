"""Dramatiq: the module that `dramatiq` loads; run as a program, the producer."""

import dramatiq
from dramatiq.brokers.redis import RedisBroker

import common

# Reliable by default: a message is acknowledged after its job; messages of a worker without heartbeat are requeued.
broker = RedisBroker(url=common.REDIS)
dramatiq.set_broker(broker)


@dramatiq.actor
def no_op(payload):
    # No result backend: results are not kept.
    common.report(payload)


if __name__ == "__main__":
    common.produce(no_op.send)
