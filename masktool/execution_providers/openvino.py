"""OpenVINO: Intel's processors and GPUs.

Options as in ONNX Runtime's ``openvino_provider_factory.cc``. ``precision`` is ``ACCURACY``, which keeps the file's
own: on a GPU OpenVINO takes float16 otherwise. The plugin reads two of the options and leaves the others, the precision
among them, to the file of ``load_config``, such as ``{"GPU": {"INFERENCE_PRECISION_HINT": "F32"}}``. OpenVINO makes a
constant of an input that has a default: with a mask that may be left out, every mask gave the scores of the whole image
(onnxruntime-openvino 1.24.1).
"""

from masktool.execution_providers.provider import (
    ExecutionProvider,
    choice_option,
    number_option,
    switch_option,
    text_option,
)

OPENVINO = ExecutionProvider(
    name="openvino",
    runtime_name="OpenVINOExecutionProvider",
    title="OpenVINO",
    devices="Intel's CPUs, GPUs and NPUs",
    package="onnxruntime-ep-openvino",
    plugin="onnxruntime_ep_openvino",
    plugin_options=("load_config", "reshape_input"),
    systems=("linux", "win32"),
    on_gpu=False,
    makes_defaults_constant=True,
    by_name_only="computes on the CPU where there is no GPU, and takes no mask that may be left out",
    switch_words=("False", "True"),
    defaults=(("precision", "ACCURACY"),),
    options=(
        text_option("device_type", "CPU, GPU, GPU.1, NPU, or several, such as `AUTO:GPU,CPU`.", "OpenVINO's choice"),
        choice_option(
            "precision", "Precision of the arithmetic; ACCURACY is the file's.", choices=("FP32", "FP16", "ACCURACY")
        ),
        number_option("num_of_threads", "Threads on the CPU.", "All"),
        number_option("num_streams", "Runs at the same time.", "1"),
        text_option("cache_dir", "Folder for compiled files."),
        text_option("load_config", "JSON file with OpenVINO's own properties by device."),
        choice_option(
            "model_priority",
            "Precedence among several files on one device.",
            "DEFAULT",
            choices=("LOW", "MEDIUM", "HIGH", "DEFAULT"),
        ),
        switch_option("disable_dynamic_shapes", "Whether the file is compiled anew for every shape.", "False"),
        text_option("layout", "Where axes lie, such as `image[NCHW]`."),
        switch_option("enable_opencl_throttling", "Whether the GPU's driver lets the CPU rest.", "False"),
        switch_option("enable_qdq_optimizer", "Whether quantised files are changed for NPUs.", "False"),
        text_option("reshape_input", "Fixed shapes for the inputs, such as `image[1,3,224,224]`."),
    ),
)
