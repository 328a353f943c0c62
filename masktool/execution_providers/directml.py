"""DirectML: every GPU with Direct3D 12, on Windows.

Options as in ONNX Runtime's Python interface to it.
"""

from masktool.execution_providers.provider import ExecutionProvider, choice_option, number_option, switch_option

DIRECTML = ExecutionProvider(
    name="directml",
    runtime_name="DmlExecutionProvider",
    title="DirectML",
    memory="dml",
    devices="every GPU with Direct3D 12",
    package="onnxruntime-directml",
    systems=("win32",),
    switch_words=("False", "True"),
    options=(
        number_option("device_id", "Which GPU.", "0"),
        choice_option(
            "performance_preference",
            "Which GPU of several.",
            "default",
            choices=("default", "high_performance", "minimum_power"),
        ),
        choice_option("device_filter", "Kinds of devices to choose from.", "gpu", choices=("gpu", "any", "npu")),
        switch_option("disable_metacommands", "Whether the driver's own kernels are left out.", "False"),
    ),
)
