"""WebGPU: every GPU with a driver for Vulkan, Direct3D 12 or Metal.

Options as in ONNX Runtime's ``webgpu_provider_options.h``, without those that are addresses in memory and those of
language models. ONNX Runtime ignores one that the installed version does not know.
"""

from masktool.execution_providers.provider import (
    ExecutionProvider,
    choice_option,
    number_option,
    switch_option,
    text_option,
)

FUSED_ACTIVATIONS = "ConvActivationFusion"
"""In ONNX Runtime 1.27 two convolutions of 1 x 1 and fewer than 8 channels, such as those of a squeeze-excitation,
share one shader whatever their activations: the sigmoid of the one becomes the ReLU of the other."""
BUFFER_MODES = ("disabled", "lazyRelease", "simple", "bucket")
WEBGPU = ExecutionProvider(
    name="webgpu",
    runtime_name="WebGpuExecutionProvider",
    title="WebGPU",
    memory="webgpu",
    devices="every GPU with Vulkan, Direct3D 12 or Metal",
    package="onnxruntime-ep-webgpu",
    plugin="onnxruntime_ep_webgpu",
    driver="vulkan",
    needs_listed_gpu=True,
    faulty_fusions=(FUSED_ACTIVATIONS,),
    trials=((("preferredLayout", "NCHW"),),),
    entry_prefix="ep.webgpuexecutionprovider.",
    options=(
        choice_option("preferredLayout", "Where channels lie in convolutions.", "NHWC", choices=("NCHW", "NHWC")),
        choice_option("dawnBackendType", "Interface to the driver.", "The system's", choices=("Vulkan", "D3D12")),
        choice_option(
            "powerPreference", "Which GPU of several.", "high-performance", choices=("high-performance", "low-power")
        ),
        choice_option(
            "validationMode", "How much Dawn checks.", "basic", choices=("disabled", "wgpuOnly", "basic", "full")
        ),
        choice_option("storageBufferCacheMode", "How buffers of results are kept.", "bucket", choices=BUFFER_MODES),
        choice_option("uniformBufferCacheMode", "How buffers of parameters are kept.", "simple", choices=BUFFER_MODES),
        choice_option(
            "queryResolveBufferCacheMode", "How buffers of timings are kept.", "disabled", choices=BUFFER_MODES
        ),
        choice_option("defaultBufferCacheMode", "How other buffers are kept.", "disabled", choices=BUFFER_MODES),
        number_option("maxStorageBufferBindingSize", "Bytes of one buffer at most.", "The device's limit"),
        text_option("forceCpuNodeNames", "Names of nodes that run on the CPU, one a line."),
        switch_option("preserveDevice", "Whether the device outlives its last session.", "0"),
        switch_option("enableGraphCapture", "Whether the run is recorded and repeated.", "0", captures=True),
        switch_option("enablePIXCapture", "Whether a recording for PIX is made.", "0"),
    ),
)
