"""RQ: the module of the job; run as a program, the producer."""

import common


def no_op(payload):
    return common.report(payload)


if __name__ == "__main__":
    from redis import Redis
    from rq import Queue

    # Reliable by default: LMOVE into an intermediate list, and a registry of running jobs. Results are kept for 500 s.
    queue = Queue(connection=Redis.from_url(common.REDIS))
    JOB = "rq_peer.no_op"
    common.produce(
        lambda payload: queue.enqueue(JOB, payload),
        lambda payloads: queue.enqueue_many([Queue.prepare_data(JOB, (payload,)) for payload in payloads]),
    )
