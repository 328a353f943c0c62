"""Linear algebra has one thread while masktool explains, and gets its threads back."""

import numpy as np
from threadpoolctl import threadpool_info, threadpool_limits

import masktool
from masktool.explainers.method import METHODS


def blas_threads():
    """The number of threads of each library of linear algebra that is loaded."""
    return {each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas"}


def test_an_explanation_computes_with_one_thread_of_linear_algebra(monkeypatch):
    found = []

    def attribute(self, tasks):
        found.append(blas_threads())
        return before(self, tasks)

    before = METHODS["lime"].attribute_together
    monkeypatch.setattr(METHODS["lime"], "attribute_together", attribute)
    with masktool.load(None, "cpu") as session:
        image = np.random.default_rng(0).random((3, *session.spatial_shape), np.float32)
        masktool.explain(session, image, "lime", n_samples=20)  # loads every library
        with threadpool_limits(2, "blas"):
            masktool.explain(session, image, "lime", n_samples=20)
            assert blas_threads() == {2}
    assert found == [{1}, {1}]
