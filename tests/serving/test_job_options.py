"""What a client may choose of an explanation: nothing that names a file on the server."""

import inspect

import pytest

import masktool
from masktool.explainers.explanation_settings import SHARED_ARGUMENTS
from masktool.serving.explanations import OF_EXPLAIN, check_job_options
from masktool.serving.refusals import RequestError


@pytest.mark.parametrize("name", ["reference", "region", "inputs"])
def test_no_option_is_a_path(name):
    with pytest.raises(RequestError, match="jobs do not take"):
        check_job_options({name: "/etc/passwd"})


def test_arguments_that_may_be_paths_are_all_left_out():
    """Whoever adds one to ``explain`` learns here that a server's clients must not have it."""
    hints = inspect.get_annotations(masktool.explain)
    paths = {
        name for name in SHARED_ARGUMENTS if "ImageLike" in str(hints.get(name)) or "Region" in str(hints.get(name))
    }
    assert paths == {"reference", "region", "inputs"}
    assert not paths & OF_EXPLAIN
