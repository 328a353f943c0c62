"""Work in a forked child: what this process holds, and what its garbage is, stays as it is there."""

import gc
import time

import onnxruntime
from networks.small_graphs import classifier

from masktool.exporters.forked import try_in_child


def test_a_session_that_nobody_holds_is_left_alone_in_the_child():
    """ONNX Runtime's end of a session waits for its threads, and a forked child has none of them."""
    model = classifier().SerializeToString()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    gc.disable()
    try:
        holder = {"session": onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])}
        holder["itself"] = holder
        del holder
        time.sleep(0.5)  # until the threads that wait for work sleep
        ending = try_in_child(lambda: f"collected {gc.collect()}", patience=10)
    finally:
        gc.enable()
    assert ending.said.startswith("collected")


def test_the_garbage_collector_is_as_it_was():
    assert gc.isenabled()
    try_in_child(lambda: "")
    assert gc.isenabled()
    gc.disable()
    try:
        try_in_child(lambda: "")
        assert not gc.isenabled()
    finally:
        gc.enable()
