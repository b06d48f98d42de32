"""A few scripted faults in races; ``make soak`` has 200."""

from pathlib import Path

import pytest

from processes import HAS_PROC, adopting
from soak.many import soak


@pytest.mark.skipif(not HAS_PROC, reason="reads /proc to find processes")
@pytest.mark.parametrize("place", ["sqlite", "postgresql"])
def test_faults_lose_nothing_repeat_nothing_and_leave_no_process(place: str, tmp_path: Path):
    with adopting():
        counts, wrong = soak(tmp_path, [place], 3)
    assert not wrong
    assert counts[place].total() == 3
