"""A worker process: reads tasks from its standard input, writes runs to its standard output, ends with its parent."""

import os
import pickle
import sys
import threading
from queue import SimpleQueue
from typing import Any

from thalweg.race.workers import Job, Source


def main() -> None:
    """Work until standard input closes."""
    # What a user's model prints must not get between the runs: from here on it goes to standard error.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    inbox: SimpleQueue[Any] = SimpleQueue()
    threading.Thread(target=_listen, args=(inbox,), daemon=True).start()
    try:
        sys.path[:] = pickle.loads(inbox.get())
        source: Source = pickle.loads(inbox.get())
        problem = source.load()
        job: Job = pickle.loads(inbox.get())
    except Exception as error:
        said = f"a worker process cannot read the race ({type(error).__name__}: {error}); use workers=1"
        pickle.dump(said, answers)
        answers.close()
        return
    while True:
        pickle.dump(job.do(problem, inbox.get()), answers)
        answers.flush()


def _listen(inbox: "SimpleQueue[Any]") -> None:
    """Hand on what the parent sends; when it is gone, so is the reason to go on, even in the middle of a run."""
    try:
        while True:
            inbox.put(pickle.load(sys.stdin.buffer))
    finally:
        os._exit(0)


if __name__ == "__main__":
    main()
