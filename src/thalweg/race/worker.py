"""A worker process: receives tasks, answers with runs, and ends with its parent, together with its own children."""

import dataclasses
import os
import pickle
import sys
import threading
from queue import SimpleQueue
from typing import Any

from thalweg import lifelines
from thalweg.problems import Problem, Training
from thalweg.race import streaming
from thalweg.race.channel import Channel
from thalweg.race.job import Fault, Job, Source, WorkerError
from thalweg.race.streaming import Streamed


def main() -> None:
    """Work until the parent has ended."""
    # The pipes get descriptors of their own.  Standard input is empty, as a child of the user's model that closes it
    # would wait for the thread that reads; and what the model prints goes to standard error, not between the runs.
    channel = Channel(os.dup(0), os.dup(1))
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    lifelines.hold(channel.reads, channel.writes)
    inbox: SimpleQueue[Any] = SimpleQueue()
    threading.Thread(target=_listen, args=(channel, inbox), daemon=True).start()
    lifelines.end_with(None)  # from here on the thread handles that, and the children, too
    try:
        problem, job = _prepared(inbox)
    except WorkerError as error:
        channel.send(Fault.of(error))
        return
    except BaseException as error:  # a user's file may even call exit
        said = f"a worker process cannot read the race ({type(error).__name__}: {error}); use workers=1"
        channel.send(Fault.of(WorkerError(said)))
        return
    while True:
        try:
            tasks = inbox.get()
            with streaming.to(lambda points: channel.send(Streamed(points))):
                answer = job.do(problem, tasks)
        except BaseException as error:  # the parent decides how to handle it
            answer = Fault.of(error)
        channel.send(answer)


def _prepared(inbox: "SimpleQueue[Any]") -> tuple[Problem | Training, Job]:
    sys.path[:] = pickle.loads(inbox.get())
    source: Source = pickle.loads(inbox.get())
    problem = source.load()
    job: Job = dataclasses.replace(pickle.loads(inbox.get()), apart=True)
    job.compare(source, problem)
    return problem, job


def _listen(channel: Channel, inbox: "SimpleQueue[Any]") -> None:
    """Pass on messages from the parent; end the process when the parent has ended, even during a run."""
    try:
        while True:
            inbox.put(channel.receive())
    finally:
        lifelines.end_group(os.getpid())
