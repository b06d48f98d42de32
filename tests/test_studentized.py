"""The studentized range, against SciPy's and a printed table."""

import numpy as np
import pytest
import scipy

from thalweg.verdict import studentized

RANGES = np.array([0.0, 0.01, 0.5, 1.0, 2.0, 3.0, 3.7, 4.0, 5.0, 7.0, 10.0, 20.0, 50.0])


@pytest.mark.parametrize("freedom", [4.0, 4.67, 6.6, 30.3, 5000.0])
@pytest.mark.parametrize("k", [2, 3, 10, 50])
def test_it_is_scipys(k: int, freedom: float):
    known = scipy.stats.studentized_range.sf(RANGES, k, freedom)
    found = studentized.sf(RANGES, k, freedom)
    assert abs(found - known).max() < 1e-11
    assert (np.diff(found) <= 0).all()


# R. Lowry, "Concepts and Applications of Inferential Statistics", appendix D, as most textbooks have it.
@pytest.mark.parametrize(
    ("alpha", "k", "freedom", "printed"),
    [(0.05, 3, 10, 3.88), (0.05, 10, 5, 6.99), (0.01, 4, 20, 5.02), (0.05, 2, 60, 2.83), (0.01, 10, 10, 7.21)],
)
def test_the_range_that_is_exceeded_is_that_of_tables(alpha: float, k: int, freedom: float, printed: float):
    assert round(studentized.isf(alpha, k, freedom), 2) == printed


@pytest.mark.parametrize("alpha", [1e-6, 1e-3, 0.05, 0.5, 0.99])
def test_one_inverts_the_other(alpha: float):
    assert studentized.sf(studentized.isf(alpha, 7, 6.67), 7, 6.67) == pytest.approx(alpha, rel=1e-8)


def test_shapes_are_kept():
    assert studentized.sf(np.zeros((2, 0, 3)), 3, 8.0).shape == (2, 0, 3)
    assert studentized.sf(np.full((2, 3), 3.0), 3, 8.0).shape == (2, 3)
    assert float(studentized.sf(3.0, 3, 8.0)) == pytest.approx(0.143, abs=0.01)
