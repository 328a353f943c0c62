"""The queue of jobs: order, bounds, progress, ends."""

import threading
import time

import pytest

from masktool.errors import MasktoolError
from masktool.limits import limit, limits
from masktool.serving.jobs import JobBounds, JobQueue, JobState
from masktool.serving.refusals import RequestError

PATIENCE = 10


class Stage:
    """Tasks that go on step by step, as the test lets them."""

    def __init__(self):
        self.steps, self.begun, self.cut = threading.Semaphore(0), [], threading.Event()

    def __call__(self, task, progress):
        self.begun.append(task)
        if task == "fails":
            raise MasktoolError("no such class", where="target", expected="0 to 3")
        if task == "breaks":
            raise ZeroDivisionError("by\nzero")
        try:
            with progress("explaining", 3) as advance:
                for _ in range(3):
                    assert self.steps.acquire(timeout=PATIENCE)
                    advance(1, "a note")
        except BaseException:
            self.cut.set()
            raise
        return {"json": f"{task}!".encode(), "png": b"P"}


class Clock:
    """Seconds, as the test sets them."""

    now = 0.0

    def __call__(self):
        return self.now


def wait_for(queue, job, *states):
    with queue.changed:
        assert queue.changed.wait_for(lambda: job.state in states, PATIENCE), job.state
    return job


def wait_for_steps(queue, job, done):
    end = time.monotonic() + PATIENCE
    while job.done < done and time.monotonic() < end:
        time.sleep(0.002)
    assert job.done == done


@pytest.fixture
def stage():
    return Stage()


def test_jobs_run_in_their_order_and_tell_how_far_they_are(stage):
    queue = JobQueue(stage)
    first, second = queue.submit("first", "model", 3), queue.submit("second", "model", 3)
    wait_for(queue, first, JobState.RUNNING)
    assert (queue.place_of(first), queue.place_of(second)) == (None, 0)
    stage.steps.release(2)
    wait_for_steps(queue, first, 2)
    assert (first.description, first.total, first.note) == ("explaining", 3, "a note")
    stage.steps.release(4)
    wait_for(queue, second, JobState.DONE)
    assert stage.begun == ["first", "second"]
    assert queue.find(first.identifier, "model").result["json"] == b"first!"
    assert first.task is None
    queue.stop()


def test_the_queue_is_bounded_and_says_when_to_come_back(stage):
    queue = JobQueue(stage, JobBounds(longest=2))
    running = queue.submit("a", "model", 3)
    wait_for(queue, running, JobState.RUNNING)
    queue.submit("b", "model", 3)
    queue.submit("c", "model", 3)
    with pytest.raises(RequestError) as refused:
        queue.submit("d", "model", 3)
    assert refused.value.status == 429
    assert refused.value.retry_after >= 1
    stage.steps.release(9)
    queue.stop()


@pytest.mark.parametrize(("task", "said"), [("fails", "no such class (target)"), ("breaks", "a fault of the server")])
def test_a_job_that_fails_says_why_in_one_line_and_the_next_runs(stage, task, said):
    queue = JobQueue(stage)
    failing, next_one = queue.submit(task, "model", 3), queue.submit("next", "model", 3)
    stage.steps.release(3)
    wait_for(queue, next_one, JobState.DONE)
    assert failing.state is JobState.FAILED
    assert failing.error.startswith(said)
    assert "\n" not in failing.error
    queue.stop()


def test_a_job_is_cancelled_while_it_waits_and_while_it_runs(stage):
    queue = JobQueue(stage)
    running, waiting, last = (
        queue.submit("running", "model", 3),
        queue.submit("waiting", "model", 3),
        queue.submit("last", "model", 3),
    )
    wait_for(queue, running, JobState.RUNNING)
    queue.cancel(waiting)
    queue.cancel(running)
    assert (running.state, waiting.state) == (JobState.CANCELLED, JobState.CANCELLED)
    stage.steps.release(4)
    assert stage.cut.wait(PATIENCE)  # the work itself has ended, at its next step
    wait_for(queue, last, JobState.DONE)
    assert stage.begun == ["running", "last"]
    assert running.state is JobState.CANCELLED
    queue.cancel(last)
    assert last.state is JobState.DONE
    assert last.result == {}
    queue.stop()


def test_a_job_that_takes_too_long_fails(stage):
    clock = Clock()
    queue = JobQueue(stage, JobBounds(seconds=5), clock)
    job = queue.submit("long", "model", 3)
    wait_for(queue, job, JobState.RUNNING)
    stage.steps.release()
    wait_for_steps(queue, job, 1)
    clock.now = 6
    stage.steps.release()
    assert "took too long" in wait_for(queue, job, JobState.FAILED).error
    queue.stop()


def test_pictures_that_wait_hold_a_bounded_number_of_bytes(stage):
    queue = JobQueue(stage, JobBounds(waiting_bytes=10))
    wait_for(queue, queue.submit("running", "model", 99), JobState.RUNNING)  # nothing waits: any size
    queue.submit("a", "model", 6)
    with pytest.raises(RequestError, match="10 bytes of pictures") as refused:
        queue.submit("b", "model", 6)
    assert refused.value.status == 429
    queue.submit("c", "model", 4)
    queue.stop()


def test_a_job_is_not_found_under_another_model(stage):
    queue = JobQueue(stage)
    job = queue.submit("a", "one", 3)
    with pytest.raises(RequestError, match="no such explanation"):
        queue.find(job.identifier, "other")
    assert queue.find(job.identifier, "one") is job
    queue.stop()


def test_results_expire(stage):
    clock = Clock()
    queue = JobQueue(stage, JobBounds(expiry=60), clock)
    stage.steps.release(3)
    job = wait_for(queue, queue.submit("a", "model", 3), JobState.DONE)
    assert queue.seconds_left(job) == 60
    clock.now = 59
    assert queue.find(job.identifier, "model") is job
    clock.now = 60
    with pytest.raises(RequestError) as refused:
        queue.find(job.identifier, "model")
    assert (refused.value.status, job.result) == (410, {})
    with pytest.raises(RequestError) as refused:
        queue.find("0" * 32, "model")
    assert refused.value.status == 404
    queue.stop()


def test_the_oldest_results_go_where_all_are_too_large(stage):
    queue = JobQueue(stage, JobBounds(kept_bytes=10))
    stage.steps.release(9)
    jobs = [wait_for(queue, queue.submit(name * 4, "model", 3), JobState.DONE) for name in "abc"]  # 6 bytes each
    assert queue.find(jobs[2].identifier, "model").result["json"] == b"cccc!"
    with pytest.raises(RequestError):
        queue.find(jobs[1].identifier, "model")
    queue.stop()


def test_closing_cancels_what_waits_and_lets_what_runs_end(stage):
    queue = JobQueue(stage)
    running, waiting = queue.submit("running", "model", 3), queue.submit("waiting", "model", 3)
    wait_for(queue, running, JobState.RUNNING)
    queue.close()
    assert waiting.state is JobState.CANCELLED
    assert queue.running == 1
    with pytest.raises(RequestError) as refused:
        queue.submit("late", "model", 3)
    assert refused.value.status == 503
    stage.steps.release(3)
    wait_for(queue, running, JobState.DONE)
    assert queue.count_states() == {JobState.DONE: 1, JobState.CANCELLED: 1}


def test_several_workers_run_at_once(stage):
    queue = JobQueue(stage, JobBounds(workers=2))
    jobs = [queue.submit("a", "model", 3), queue.submit("b", "model", 3)]
    for job in jobs:
        wait_for(queue, job, JobState.RUNNING, JobState.DONE)
    stage.steps.release(6)
    for job in jobs:
        wait_for(queue, job, JobState.DONE)
    queue.stop()


def tell_limit(task, progress):
    return {"json": str(limit("pixels")).encode()}


def test_limits_that_were_raised_hold_in_the_threads():
    with limits(pixels=7):
        queue = JobQueue(tell_limit)
    job = wait_for(queue, queue.submit("a", "model", 3), JobState.DONE)
    assert job.result == {"json": b"7"}
    queue.stop()
