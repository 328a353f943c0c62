"""Warnings that are turned off while threads read pictures come back."""

import threading
import warnings

import pytest

from masktool.runtime.unwarned import unwarned


def test_of_two_threads_that_overlap_the_last_brings_warnings_back():
    usual = list(warnings.filters)
    inside, left = threading.Event(), threading.Event()

    def enter_second():
        with unwarned():
            inside.set()
            assert left.wait(10)

    other = threading.Thread(target=enter_second)
    with unwarned():
        other.start()
        assert inside.wait(10)
        warnings.warn("nobody sees this", stacklevel=1)
    assert warnings.filters[0][0] == "ignore", "the other thread is still inside"
    left.set()
    other.join()
    assert warnings.filters == usual
    with pytest.warns(UserWarning, match="shown"):
        warnings.warn("shown", stacklevel=1)


def test_an_error_inside_brings_warnings_back():
    usual = list(warnings.filters)
    with pytest.raises(ValueError, match="wrong"), unwarned():
        raise ValueError("wrong")
    assert warnings.filters == usual
