"""What Triton's ONNX Runtime backend asks of a configuration, restated from its source, and a request as it runs one.

Source: triton-inference-server/onnxruntime_backend at 00fd3e8 (June 2026), src/onnxruntime.cc (ValidateInputs,
ValidateOutputs) and onnxruntime_utils.cc (CompareDimsSupported); triton-inference-server/core at 73aad7c,
src/model_config_utils.cc (ValidateIOShape, ValidateModelConfig) and infer_request.cc (Normalize).
"""

import numpy as np
import onnxruntime

TYPES = {
    "TYPE_FP16": ("tensor(float16)", np.float16),
    "TYPE_FP32": ("tensor(float)", np.float32),
    "TYPE_INT32": ("tensor(int32)", np.int32),
    "TYPE_INT64": ("tensor(int64)", np.int64),
    "TYPE_UINT8": ("tensor(uint8)", np.uint8),
    "TYPE_BOOL": ("tensor(bool)", np.bool_),
}


class Backend:
    """A version of a model in a repository, opened as the backend opens it."""

    def __init__(self, config, folder):
        self.config = config
        self.batched = config.one("max_batch_size") > 0
        self.session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
        self.required = {node.name: node for node in self.session.get_inputs()}
        self.optional = {node.name: node for node in self.session.get_overridable_initializers()}
        self.outputs = {node.name: node for node in self.session.get_outputs()}

    def check(self):
        """Fails where the backend would refuse to load the model."""
        inputs, config = self.config.all("input"), self.config
        assert config.one("backend") == "onnxruntime"
        assert sum(not each.one("optional", False) for each in inputs) == len(self.required)
        for each in inputs:
            optional = each.one("optional", False)
            assert not (optional and self.batched)
            self.check_tensor(each, (self.optional if optional else self.required)[each.one("name")], exact=False)
        assert {each.one("name") for each in config.all("output")} == set(self.outputs)
        for each in config.all("output"):
            self.check_tensor(each, self.outputs[each.one("name")], exact=True)
        if batching := config.one("dynamic_batching"):
            assert all(0 < size <= config.one("max_batch_size") for size in batching.one("preferred_batch_size"))

    def check_tensor(self, declared, node, *, exact):
        dims = declared.one("dims")
        assert dims
        assert all(dim == -1 or dim >= 1 for dim in dims)
        assert TYPES[declared.one("data_type")][0] == node.type
        shape = [axis if isinstance(axis, int) else -1 for axis in node.shape]
        if not shape:
            assert set(dims) == {1}
            return
        inner = declared.one("reshape").one("shape") if declared.one("reshape") is not None else dims
        whole = [-1, *inner] if self.batched else inner
        assert not self.batched or shape[0] == -1
        assert len(whole) == len(shape)
        assert all(said == axis for said, axis in zip(whole, shape, strict=True) if exact or axis != -1)

    def make_request(self, rows, open_length=16, optional=()):
        """Values for the inputs from the configuration alone, as a client sends them."""
        random = np.random.default_rng(0)
        request = {}
        for each in self.config.all("input"):
            name, dims = each.one("name"), each.one("dims")
            if each.one("optional", False) and name not in optional:
                continue
            if self.batched:
                shape = [rows, *(open_length if dim == -1 else dim for dim in dims)]
            else:
                first = rows if dims[0] == -1 and len(dims) != 3 else dims[0]
                shape = [open_length if dim == -1 else dim for dim in (first, *dims[1:])]
            request[name] = make_values(random, shape, TYPES[each.one("data_type")][1])
        return request

    def run(self, request):
        """Runs a request as Triton does, and returns the outputs as a client sees them."""
        if self.batched:
            assert len({len(value) for value in request.values()}) == 1  # one batch size for all inputs
        feed = {}
        for each in self.config.all("input"):
            if (value := request.get(each.one("name"))) is not None:
                is_number = not self.batched and not (self.required | self.optional)[each.one("name")].shape
                feed[each.one("name")] = value.reshape(()) if is_number else value
        names = [each.one("name") for each in self.config.all("output")]
        results = dict(zip(names, self.session.run(names, feed), strict=True))
        return {each.one("name"): self.see(each, results[each.one("name")]) for each in self.config.all("output")}

    def see(self, declared, value):
        """An output as the client sees it, after ``reshape``, and held to what the configuration says of it."""
        if declared.one("reshape") is not None:
            value = value.reshape(len(value), *declared.one("dims"))
        dims = [-1, *declared.one("dims")] if self.batched else declared.one("dims")
        assert value.dtype == TYPES[declared.one("data_type")][1]
        assert len(value.shape) == len(dims)
        assert all(dim in (-1, length) for dim, length in zip(dims, value.shape, strict=True))
        return value


def make_values(random, shape, dtype):
    if np.issubdtype(dtype, np.floating):
        return random.random(shape).astype(dtype)
    return random.integers(0, 200 if dtype == np.uint8 else 2, shape).astype(dtype)
