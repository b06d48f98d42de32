"""As in a container: a user without a name or home, on a read-only disk."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import thalweg

PACKAGE = Path(thalweg.__file__).parents[1]
PLACES = [Path(sysconfig.get_paths()["purelib"]), Path(sys.base_prefix), PACKAGE]

# Runs in a mount namespace of its own, so the mounts are not visible outside.
INSIDE = """
set -e
mount -t tmpfs tmpfs /mnt
mkdir /mnt/site /mnt/python /mnt/source /mnt/volume
mount --bind "$1" /mnt/site
mount --bind "$2" /mnt/python
mount --bind "$3" /mnt/source
mount --bind "$4" /mnt/volume
chown 54321:54321 /mnt/volume
for place in / /mnt /mnt/site /mnt/python /mnt/source; do mount -o remount,bind,ro "$place"; done
mount -t tmpfs -o ro tmpfs /tmp
cd /mnt
shift 4
exec setpriv --reuid 54321 --regid 54321 --clear-groups env -i PYTHONPATH=/mnt/source:/mnt/site PYTHONHOME=/mnt/python \
    PYTHONWARNINGS=error OMP_NUM_THREADS=2 "$@"
"""

STEP = """
import os, torch, thalweg
assert os.getuid() == 54321
for place in ("/", "/tmp", "/mnt/source/thalweg/kernels", os.getcwd()):
    try:
        open(os.path.join(place, "new"), "w")
    except OSError:
        continue
    raise SystemExit(f"{place} can be written")
assert os.path.expanduser("~") == "~"
p = torch.zeros(1000, requires_grad=True)
p.grad = torch.ones(1000)
thalweg.Optimizer([p], thalweg.rules.Adam(), backend="numba", clip_norm=1.0).step()
print(p[0].item())
"""


def _allowed() -> bool:
    tools = all(shutil.which(tool) for tool in ("unshare", "setpriv", "mount"))
    return (
        tools
        and subprocess.run(["unshare", "-m", "mount", "-t", "tmpfs", "t", "/mnt"], capture_output=True).returncode == 0
    )


pytestmark = pytest.mark.skipif(
    not (hasattr(os, "geteuid") and os.geteuid() == 0 and _allowed()),
    reason="only the superuser may change users and mount, and not everywhere",
)


def contained(volume: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    python = Path("/mnt/python") / Path(os.path.realpath(sys.executable)).relative_to(sys.base_prefix)
    places = [*map(str, PLACES), str(volume)]
    line = ["unshare", "-m", "sh", "-c", INSIDE, "sh", *places, str(python), *arguments]
    return subprocess.run(line, capture_output=True, text=True, timeout=300)


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    (tmp_path / "volume").mkdir()
    return tmp_path / "volume"


def test_an_optimizer_steps_without_any_folder_to_write_to(volume: Path) -> None:
    done = contained(volume, "-c", STEP)
    assert (done.returncode, done.stderr) == (0, "")
    assert float(done.stdout) == pytest.approx(-1e-3)


def test_a_race_needs_the_folder_that_it_writes_to_and_no_other(volume: Path) -> None:
    race = ("-m", "thalweg", "race", "digits", "--rules", "sgd", "--trials", "1", "--seeds", "2", "--steps", "3")
    refused = contained(volume, *race)
    assert refused.returncode == 2
    assert len(refused.stderr.strip().splitlines()) == 1
    assert "cannot be made (Read-only file system); choose another with --out" in refused.stderr
    done = contained(volume, *race, "--out", "/mnt/volume/race")
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (volume / "race").iterdir()} >= {"race.db", "report.html", "leaderboard.csv"}
