"""Celery: the app that `celery` loads; run as a program, the producer."""

from celery import Celery

import common

app = Celery("celery_peer", broker=common.REDIS)
app.conf.update(
    # By default Celery acknowledges a job before it runs and loses it in a crash.
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    # No result backend: results are not kept.
    task_ignore_result=True,
    worker_redirect_stdouts=False,
    broker_connection_retry_on_startup=True,
)


@app.task(name="no-op")
def no_op(payload):
    return common.report(payload)


if __name__ == "__main__":
    common.produce(no_op.delay)
